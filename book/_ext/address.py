"""Where the book and its source are on the web, from one setting, `book_repository` in _config.yml: links to edit a
page, to report a mistake and to run a notebook on Binder or Colab, and the addresses of the social card.

Empty, it is the repository whose GitHub Action builds the book; anywhere else no page has such a link. Links are only
followed: opening a page asks no server for anything.
"""

import os
from urllib.parse import urlsplit

from sphinx.errors import ConfigError

BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"


def repository(setting, environment):
    """The address of the repository: the setting, or that of the Action that runs, or "".

    Raises ConfigError for one that is not https://HOST/OWNER/NAME.
    """
    action = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}".format_map(environment) if _acts(environment) else ""
    found = (setting or action).rstrip("/")
    parts = urlsplit(found)
    if found and (parts.scheme != "https" or len(parts.path.split("/")) != 3):
        raise ConfigError(f"book_repository = {found!r} is not allowed: https://github.com/OWNER/NAME, or empty")
    return found


def _acts(environment):
    return all(name in environment for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))


def site(repository):
    """Where GitHub Pages serves the book of a repository."""
    owner, name = urlsplit(repository).path.strip("/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def theme_options(repository):
    """The options of the theme that make the links."""
    launch = {"binderhub_url": BINDER, "colab_url": COLAB, "notebook_interface": "jupyterlab"}
    buttons = dict.fromkeys(("use_repository_button", "use_issues_button", "use_edit_page_button"), True)
    place = {"repository_url": repository, "repository_branch": "main", "path_to_docs": "book"}
    return {**place, **buttons, "launch_buttons": launch}


def configure(app, config):
    """Before a build: all settings that follow from the address."""
    found = repository(config.book_repository, os.environ)
    if found:
        config.html_theme_options = {**config.html_theme_options, **theme_options(found)}
        config.html_baseurl = config.ogp_site_url = config.html_baseurl or site(found)


def setup(app):
    """Registers it with Sphinx."""
    app.add_config_value("book_repository", "", "html", types=(str,))
    app.connect("config-inited", configure, priority=100)  # before the theme reads its options
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
