"""Numbers of propositions, lemmas and theorems that cannot be taken for the paper's: ours are A.1, A.2 and so on
through the book; what stands in the paper has the paper's number, which its label tells: `paper-theorem-1`.
"""

import re

TYPES = ("proposition", "lemma", "theorem")
OF_THE_PAPER = re.compile(r"paper-[a-z]+-(\d+)")


def renumbered(numbers):
    """Numbers as Sphinx counts them, {page: {type: {label: (k,)}}}, in place: a sequence for each of `TYPES`."""
    for kind in TYPES:
        entries = [(own, label) for page in numbers.values() for own in [page.get(kind, {})] for label in own]
        count = 0
        for own, label in sorted(entries, key=lambda entry: entry[0][entry[1]]):
            paper = OF_THE_PAPER.fullmatch(label)
            count += not paper
            own[label] = (paper[1],) if paper else ("A", count)
    return numbers


def renumber(app, env):
    """After Sphinx has numbered what a book counts."""
    renumbered(env.toc_fignumbers)
    return []


def setup(app):
    """Registers it with Sphinx."""
    app.connect("env-get-updated", renumber, priority=900)  # after the counting itself
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
