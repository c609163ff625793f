"""Links from the page's sentences to the glossary: the first place of each term, its meaning shown on hovering."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup, escape

from decaylab.glossary import GLOSSARY, Term, find

_BY_NAME = {term.name: term for term in GLOSSARY}


@dataclass
class Words:
    """The terms that a page uses.

    Attributes:
        used: Those that were marked so far, by name.
    """

    used: dict[str, Term] = field(default_factory=dict)

    def mark(self, text: str) -> Markup:
        """Return a text as HTML, with a link on the first place of each term in it."""
        parts, end, here = [], 0, set()
        for start, stop, term in find(text):
            if term.name not in here:
                here.add(term.name)
                parts += [escape(text[end:start]), self.link(term.name, text[start:stop])]
                end = stop
        return Markup("").join([*parts, escape(text[end:])])

    def link(self, name: str, shown: str | None = None) -> Markup:
        """Return one term as a link to its meaning."""
        term = _BY_NAME[name]
        self.used[name] = term
        form = '<a class="term" href="#{}" title="{}">{}</a>'
        return Markup(form).format(term.anchor, f"{term.name}: {term.text}", shown or name)

    @property
    def listed(self) -> list[Term]:
        """The terms used, in the glossary's order."""
        return [term for term in GLOSSARY if term.name in self.used]
