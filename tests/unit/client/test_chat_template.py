"""The renderer of chat templates against transformers' own, and what it refuses."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from repo_builder.client.chat_template import ChatTemplateError, parse, render, without_bos

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
CHATML = """{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
    {%- endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}"""
LOOPS = """{% set ns = namespace(last='') %}{% for message in messages %}{% if message.role == 'skip' %}{% continue %}
{% endif %}{% set ns.last = message.content %}{% generation %}{{ message | tojson }}{% endgeneration %}
{% if message.content == 'stop' %}{% break %}{% endif %}{% endfor %}{{ ns.last }} {{ tools }} {{ documents is none }}
{{ {'<a>': "it's & é"} | tojson(indent=2) }}
{%- if enable_thinking is defined and not enable_thinking %}/no_think{% endif %}"""
TALK = [
    {"role": "system", "content": "简短地回答。"},
    {"role": "user", "content": "  What's <b>2 & 2</b>? 👩‍👩‍👧 "},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "晚上睡不着应该怎么办"},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def _own(template: str, messages: list[dict[str, str]], generation: bool = True, **variables: object) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    answers, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=generation, **SPECIAL, **variables
    )
    return str(answers[0])


@pytest.mark.parametrize("template", [LLAMA2, CHATML, LOOPS], ids=["llama-2", "chatml", "loops"])
@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("messages", [TALK, TALK[1:], [{"role": "user", "content": "stop"}, *TALK]])
def test_prompts_are_those_of_transformers(template: str, generation: bool, messages: list[dict[str, str]]) -> None:
    try:
        expected = _own(template, messages, generation)
    except Exception as error:  # noqa: BLE001 - jinja2's, which transformers passes on
        with pytest.raises(ChatTemplateError, match=str(error)):
            render(template, messages, SPECIAL, add_generation_prompt=generation)
        assert template is LLAMA2
        return
    assert render(template, messages, SPECIAL, add_generation_prompt=generation) == expected


def test_further_variables_reach_the_template() -> None:
    assert render(LOOPS, TALK, SPECIAL, enable_thinking=False).endswith("/no_think")
    assert render(LOOPS, TALK, SPECIAL, enable_thinking=False) == _own(LOOPS, TALK, enable_thinking=False)
    assert not render(LOOPS, TALK, SPECIAL).endswith("/no_think")


def test_the_date_is_todays() -> None:
    before = datetime.now().strftime("%d %b %Y")
    said = render("{{ strftime_now('%d %b %Y') }}", TALK)
    assert said in (before, datetime.now().strftime("%d %b %Y"))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception.__globals__['json'] }}",
    ],
)
def test_templates_stay_in_the_sandbox(template: str) -> None:
    with pytest.raises(ChatTemplateError, match=r"the chat template refused the messages: .*unsafe"):
        render(template, list(TALK))


def test_what_a_template_refuses_is_told() -> None:
    with pytest.raises(ChatTemplateError) as told:
        render(LLAMA2, TALK[2:], SPECIAL)
    assert str(told.value) == (
        "the chat template refused the messages: Conversation roles must alternate user/assistant"
    )


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for %}", "the chat template is not Jinja: Expected an expression, got 'end of statement block'"),
        ("{{ messages[0].content + 1 }}", "the chat template refused the messages: can only concatenate str"),
        ("{{ 1 / 0 }}", "the chat template refused the messages: division by zero"),
    ],
)
def test_broken_templates_are_told(template: str, told: str) -> None:
    with pytest.raises(ChatTemplateError) as found:
        render(template, TALK)
    assert str(found.value).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "the messages are not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[" * 100_000, "the messages are not JSON: "),
        ('"hello"', 'the messages are a str, expected a list of {"role": ..., "content": ...}'),
        ('{"role": "user"}', 'the messages are a dict, expected a list of {"role": ..., "content": ...}'),
        ("[]", "there are no messages, expected one or more"),
        ('["hello"]', 'message 0 is a str, expected a list of {"role": ..., "content": ...}'),
        ('[{"content": "x"}]', "message 0 has no role, "),
        ('[{"role": "user", "content": "x"}, {"role": "user"}]', "message 1 (user) has no content, "),
        ('[{"role": "user", "content": 7}]', "message 0 (user) has no content, "),
    ],
)
def test_messages_that_are_none_are_told(text: str, told: str) -> None:
    with pytest.raises(ChatTemplateError) as found:
        parse(text)
    assert str(found.value).startswith(told)


def test_messages_of_json() -> None:
    assert parse(json.dumps(TALK)) == TALK
    call = [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]
    assert parse(json.dumps(call)) == call


def test_bos_is_taken_off_once() -> None:
    assert without_bos("<s><s>[INST]", "<s>") == "<s>[INST]"
    assert without_bos("[INST] <s>", "<s>") == "[INST] <s>"
    assert without_bos("<s>", None) == without_bos("<s>", "") == "<s>"
