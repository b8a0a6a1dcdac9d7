"""Chat templates, rendered in the environment that transformers gives them."""

import datetime
import json

import jinja2
from faults import Fault
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %} marks assistant text for other trainers; here it is only its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Refused(Exception):
    """The template refuses these messages; the text says why."""


def _raise(message):
    raise Refused(message)


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    # Unlike Jinja's own filter this one does not escape for HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class Template:
    """A compiled template. `asked_date`: a rendering asked for today's date, so another day gives another text."""

    def __init__(self, text, path, named):
        self.asked_date = False
        self._named = named
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = self._strftime_now
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            raise Fault("DATA-31", path if line is None else f"{path}: template line {line}", str(error)) from None

    def _strftime_now(self, pattern):
        self.asked_date = True
        return datetime.datetime.now().strftime(pattern)

    def render(self, messages, generate):
        """The text of the messages; `generate`: with what stands before the next assistant turn. Raises Refused."""
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=generate, **self._named
            )
        except Refused:
            raise
        except Exception as error:  # a template may fail in any way that Python does
            raise Refused(f"{type(error).__name__}: {error}") from None
