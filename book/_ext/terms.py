"""Links the first use of every word of the glossary on a page to its entry."""

import re

from docutils import nodes

COMMON = ("run", "scale")  # words that are mostly used in another sense
KEPT = (
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.raw,
    nodes.term,
    nodes.caption,
)


def known(env):
    """The words of the glossary, the longest first: (word, page, anchor)."""
    found = [
        (name, *where)
        for (kind, name), where in env.get_domain("std").objects.items()
        if kind == "term" and name not in COMMON
    ]
    return sorted(found, key=lambda entry: -len(entry[0]))


def running_text(doctree):
    """The text nodes of paragraphs that are no title, link, code or caption."""
    for text in list(doctree.findall(nodes.Text)):
        parents, node = [], text.parent
        while node is not None:
            parents.append(node)
            node = node.parent
        plain = any(isinstance(p, nodes.paragraph) for p in parents)
        if plain and not any(
            isinstance(p, KEPT) or "made-by" in p.get("classes", []) for p in parents if hasattr(p, "get")
        ):
            yield text


def link(text, start, end, uri):
    """Puts a link around a piece of a text node; what follows it, as a new text node."""
    words, parent = text.astext(), text.parent
    reference = nodes.reference("", words[start:end], internal=True, refuri=uri, classes=["term"])
    rest = nodes.Text(words[end:])
    parent.replace(text, [nodes.Text(words[:start]), reference, rest])
    return rest


def link_first_uses(app, doctree, docname):
    """After a page is resolved: one link for each word that is used."""
    if app.builder.format != "html" or docname in ("glossary", "api"):
        return
    left = {name: (page, anchor) for name, page, anchor in known(app.env)}
    for node in running_text(doctree):
        text = node
        while left:
            found = re.search(rf"(?<!\w)(?:{'|'.join(map(re.escape, left))})(?!\w)", text.astext())
            if not found:
                break
            page, anchor = left.pop(found[0])
            text = link(text, *found.span(), f"{app.builder.get_relative_uri(docname, page)}#{anchor}")


def setup(app):
    """Registers it with Sphinx."""
    app.connect("doctree-resolved", link_first_uses)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
