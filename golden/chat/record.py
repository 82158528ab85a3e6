"""Records what Jinja, set up as transformers does it, makes of every template here.

    pip install jinja2==3.1.6 && python golden/chat/record.py

The set-up is that of transformers 5 (utils/chat_template_utils.py): the immutable sandbox, trim_blocks, lstrip_blocks,
loop controls, `{% generation %}`, and its own tojson, raise_exception, strftime_now, dict and namespace.  strftime_now
always says Friday, 26 July 2024, 15:04:05.  An answer is {"text": ...} or {"error": ...}.
"""
import json
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
NOW = datetime(2024, 7, 26, 15, 4, 5)
OTHER_DAYS = [NOW, datetime(2023, 1, 1), datetime(2024, 12, 30, 0, 7, 9), datetime(2021, 2, 3, 12, 59, 59)]


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    """Refuses names with an underscore in front."""

    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            check(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def check(name):
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"underscore-prefixed attribute {name!r}")


class Dict:
    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals.update(
        raise_exception=raise_exception,
        strftime_now=lambda format: NOW.strftime(format),
        dict=Dict(),
        namespace=Namespace,
    )
    return env


def answer(template, variables):
    try:
        text = environment().from_string(template).render(
            **{"tools": None, "documents": None, "add_generation_prompt": True, **variables}
        )
        return {"text": text}
    except Exception as error:  # whatever Python raises is an answer
        return {"error": f"{type(error).__name__}: {error}"}


def strftime():
    codes = [f"%{c}" for c in "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%" if c != "s"]
    flagged = ["%-d", "%_d", "%-m", "%-H", "%_I", "%-I", "%-j", "%_j", "%^a", "%^B", "%05d", "%_5d", "%10A", "%010A",
               "%4Y", "%06Y", "%Ey", "%Od", "%^p", "%e %-e", "%0e", "%0k", "%-y"]
    return {
        day.isoformat(): {code: day.strftime(code) for code in codes + flagged} for day in OTHER_DAYS
    }


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main():
    conversations = json.loads((HERE / "conversations.json").read_text(encoding="utf-8"))
    answers = {}
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_bytes().decode("utf-8")
        answers[path.stem] = {name: answer(template, given) for name, given in conversations.items()}
    write("expected.json", answers)
    write("strftime.json", strftime())
    errors = sum("error" in one for all in answers.values() for one in all.values())
    print(f"{len(answers)} templates, {sum(map(len, answers.values()))} answers, {errors} of them errors")


if __name__ == "__main__":
    main()
