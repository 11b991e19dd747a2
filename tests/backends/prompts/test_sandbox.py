"""A chat template is a program of somebody unknown: it gets at nothing, and it ends."""

from __future__ import annotations

import tracemalloc
from datetime import datetime
from typing import Any

import pytest
from jinja2 import TemplateError

from qwenchat.backends.prompts import sandbox
from qwenchat.backends.prompts.sandbox import BoundedSandbox, TooMuch

MESSAGES = [
    {"role": "system", "content": "one"},
    {"role": "user", "content": " two "},
    {"role": "assistant", "content": "three"},
]
DOUBLING = (
    "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"
)


NESTED = "{% set n = namespace(a='xxxxxxxx') %}" + "{% set n = namespace(a=n,b=n) %}" * 60


def render(source: str) -> str:
    values: dict[str, Any] = {"messages": MESSAGES, "tools": None, "bos_token": "<s>"}
    return BoundedSandbox(source).render(datetime(2025, 11, 26), values)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{% for m in messages %}\n{{ m['role'] ~ ':' ~ m.content | trim }}\n{% endfor %}",
            "system:one\nuser:two\nassistant:three\n",
        ),
        ("{% for m in messages %}{{ loop.index0 }}{% if not loop.last %},{% endif %}{% endfor %}", "0,1,2"),
        (
            "{% for m in messages[::-1] %}{{ loop.revindex }}{{ (loop.previtem or m).role }}{% endfor %}",
            "3assistant2assistant1user",
        ),
        (
            "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join }}",
            " two ",
        ),
        ("{{ messages[0].content.split('n')[-1].upper() + 'a' * 3 }}", "Eaaa"),
        (
            "{{ {'a': [1, 'é']} | tojson }} {{ {'a': 1} | tojson(indent=2) }}",
            '{"a": [1, "é"]} {\n  "a": 1\n}',
        ),
        ("{{ strftime_now('%d %b %Y') }}{{ date is defined }}", "26 Nov 2025False"),
        (
            "{% macro say(x) %}<{{ x }}>{% endmacro %}{{ say('a') }}{% generation %}b{% endgeneration %}",
            "<a>b",
        ),
        (
            "{% set o = namespace(n=1) %}{% for m in messages %}{% set o.n = o.n + 1 %}{% endfor %}{{ o.n }}",
            "4",
        ),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ (1, 2) | length }}", "a12"),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
            "userassistant",
        ),
        ("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "system"),
        ("{{ 4 is even }}{{ 3 is odd }}{{ 9 is divisibleby 3 }}{{ 1.26 | round(1) }}", "TrueTrueTrue1.3"),
        ("{{ messages[1].content.split(sep='w') }}{{ [none, true, 1.5] }}", "[' t', 'o '][None, True, 1.5]"),
        ("{{ messages[0].content | title }}{{ 'a<b' | safe }}{{ ('ab' | list)[0] }}", "Onea<ba"),
        (
            "{{ bos_token }}{{ tools is not none }}{{ 'a' in 'abc' }}{{ 'x,y'.replace(',', ';') }}",
            "<s>FalseTruex;y",
        ),
    ],
)
def test_what_templates_in_use_need_is_there(source: str, expected: str) -> None:
    assert render(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__['os'].system('id') }}",
        "{{ strftime_now.__self__ }}",
        "{{ range.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ ('a' | attr('__class__')).mro() }}",
        "{{ '{0.__class__}'.format('a') }}",
        "{{ messages | map(attribute='__class__') | list | first }}{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('id') }}",
        "{{ lipsum.__globals__ }}",
    ],
)
def test_it_gets_at_nothing(source: str) -> None:
    try:
        text = render(source)
    except TemplateError:
        return
    assert text == ""  # what is not there is nothing


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x + ns.x"),
        DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x ~ ns.x"),
        DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x * 9"),
        DOUBLING.replace("START", "'aaaa'").replace("STEP", "[ns.x, ns.x] | join"),
        DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x.replace('a', 'aa')"),
        DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x | replace('a', 'aa')"),
        DOUBLING.replace("START", "'aaaa'").replace("STEP", "ns.x.join([ns.x, ns.x])"),
        DOUBLING.replace("START", "[1]").replace("STEP", "[ns.x, ns.x]"),
        DOUBLING.replace("START", "{}").replace("STEP", "{'a': ns.x, 'b': ns.x}"),
        DOUBLING.replace("START", "(1,)").replace("STEP", "(ns.x, ns.x)"),
        DOUBLING.replace("START", "{}").replace("STEP", "dict(a=ns.x, b=ns.x)"),
        DOUBLING.replace("START", "9").replace("STEP", "ns.x * ns.x"),
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
        "{% set ns.x = y %}{% endfor %}",
        "{% for i in range(100000) %}" + "x" * 100_000 + "{% endfor %}",
        "{{ 'a' * 100000000 }}",
        "{{ 100000000 * ['a'] }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%100000000d' % 1 }}",
        "{{ '{:>100000000}'.format(1) }}",
        "{{ 'a'.ljust(100000000) }}",
        "{{ 'a' | center(100000000) }}",
        "{{ 5.to_bytes(100000000, 'big') }}",
        "{{ [1] | tojson(indent=100000000) }}",
        "{{ lipsum(n=10000000) }}",
        "{% if '%100000000d' is odd %}{% endif %}",
        "{% if '%100000000d' is even %}{% endif %}",
        "{% if '%100000000d' is divisibleby 3 %}{% endif %}",
        "{{ ['%100000000d'] | select('odd') | list }}",
        "{{ 1 | round(99999999, 'floor') }}",
        "{{ 1 | round(99999999) }}",
        "{{ 1.5 | round(precision=-99999999) }}",
        NESTED + "{{ n }}",
        "{% set n = namespace(a='xxxxxxxx') %}"
        + "{% set n = namespace(a=n,b=n) %}" * 60
        + "{{ n | string }}",
        NESTED + "{{ [n] ~ '' }}",
        "{% set n = namespace(a='xxxxxxxx') %}"
        + "{% set n = namespace(a=n,b=n) %}" * 60
        + "{{ {1: n}.values() }}",
        "{% set n = namespace(a='xxxxxxxx') %}"
        + "{% set n = namespace(a=n,b=n) %}" * 60
        + "{{ [n] | tojson }}",
        "{% for a in range(10000) %}{% if 'a' * 1000 == 'a' * 1000 %}{% endif %}{% endfor %}",
        "{% set x = 'ab' * 5000 %}{% for a in range(1000) %}{% if x[1:] in x %}{% endif %}{% endfor %}",
        "{% set x = 'ab' * 5000 %}{% for a in range(1000) %}{% if x is eq x %}{% endif %}{% endfor %}",
        "{% set x = ('a ' * 5000).split() %}{% for a in range(1000) %}{{ x | first }}{% endfor %}",
        DOUBLING.replace("START", "1").replace("STEP", "ns.x * 1267650600228229401496703205376"),
        "{% autoescape true %}{{ messages[0].content }}{% endautoescape %}",
        "{{ range(100000000) | list }}",
    ],
)
def test_it_ends_and_takes_no_memory(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_BUDGET", 10**5)
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):
            render(source)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**25  # what is refused only once it is there has been there


def test_an_endless_one_ends_within_the_budget_that_templates_have() -> None:
    with pytest.raises(TooMuch):
        render("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}")


def test_a_long_chat_is_no_blow_up() -> None:
    source = (
        "{% for m in messages %}{% for n in [1, 2, 3] %}{% endfor %}{{ m.content.strip() }}{% endfor %}"
        + "{# #}" * 2000
    )
    messages = [{"role": "user", "content": "word " * 400}] * 2000
    text = BoundedSandbox(source).render(datetime.now(), {"messages": messages})
    assert len(text) == 2000 * (len("word ") * 400 - 1)


@pytest.mark.parametrize(
    "source",
    [
        *("{% for %}", "{{ 'a' | nosuchfilter }}", "{{ 'a' is nosuchtest }}", "x" * (2**20 + 1)),
        "{{ " + "(" * 5000,
        "{{ " + "9" * 5000 + " }}",  # a ValueError of Python's
        "{% for a in b %}" * 30 + "{% endfor %}" * 30,  # a SyntaxError of Python's
    ],
)
def test_what_is_no_template_is_refused_at_once(source: str) -> None:
    with pytest.raises(TemplateError):
        BoundedSandbox(source)


@pytest.mark.parametrize(
    "work",
    ["1 / 0", "1.5 // 0", "'a' * '9'", "[3, 'a'] | sort", "dict(1)", "1 | round('x')", "'a'.split('')"],
)
def test_whatever_goes_wrong_in_it_is_one_kind_of_error(work: str) -> None:
    with pytest.raises(TemplateError):
        render("{{ " + work + " }}")
