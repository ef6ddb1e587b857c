"""The documentation says what is there: links, commands, generated pages, code, and nothing of anybody's machine."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(outrider [^`\n]+)`")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _load("generate")


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(text: str) -> str:
    return _FENCE.sub("", text)


def _anchor(heading: str) -> str:
    plain = re.sub(r"[`*\[\]]|\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in _LINK.findall(_prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            dead.append(target)
        elif anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", _prose(file.read_text(encoding="utf-8")), re.MULTILINE)
            if anchor not in {_anchor(h) for h in headings}:
                dead.append(target)
    assert not dead


def _command_lines(page: Path) -> Iterator[str]:
    """Every `outrider …` of a page: lines of shell blocks, the same inside $(…), and inline code."""
    text = page.read_text(encoding="utf-8")
    for language, block in _FENCE.findall(text):
        if language in ("sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from re.findall(r"(?:^|[$(;|&]\(?\s*)(outrider\s[^|)]*)", line)
    yield from _INLINE.findall(_prose(text))


def _words(line: str) -> list[str]:
    words: list[str] = []
    for word in shlex.split(line, comments=True)[1:]:
        if word in ("&", "|", ">", "2>", ";", "&&"):
            break
        words.append(word)
    return words


def misuse(line: str) -> str:
    """What is wrong with a command line, by the command tree; empty if nothing is."""
    command: Any = generate.command_tree()
    words = _words(line)
    while words and getattr(command, "commands", None):
        if words[0] == "--help":
            return ""
        if re.search(r"[|…]|^[A-Z]+$", words[0]):
            return ""  # a placeholder
        found = command.commands.get(words[0])
        if found is None:
            return f"no command {words[0]!r}"
        command, words = found, words[1:]
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    positional = 0
    while words:
        word = words.pop(0)
        if word in ("…", "...", "--help"):
            continue
        if word.startswith("-") and len(word) > 1:
            option = options.get(word.partition("=")[0])
            if option is None:
                return f"no option {word}"
            if not option.is_flag and "=" not in word:
                if not words:
                    return f"{word} has no value"
                words.pop(0)
        else:
            positional += 1
    arguments = sum(1 for p in command.params if p.param_type_name == "argument")
    return f"{positional} arguments, not {arguments}" if positional > arguments else ""


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_command_line_fits_the_command_line(page: Path) -> None:
    wrong = [f"{line}: {what}" for line in _command_lines(page) if (what := misuse(line))]
    assert not wrong


def test_the_check_of_command_lines_finds_what_is_wrong() -> None:
    assert misuse("outrider network init a --id 999-70 > out 2> log &") == ""
    assert misuse("outrider network start a") == "no command 'start'"
    assert misuse("outrider network init a --mcc 999") == "no option --mcc"
    assert misuse("outrider network init a b --id 999-70") == "2 arguments, not 1"


def test_the_check_reads_commands_inside_substitutions(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nM=$(outrider migration list --dir a --json | jq .)\n```\n\nand `outrider doctor`\n")
    assert [line.strip() for line in _command_lines(page)] == [
        "outrider migration list --dir a --json",
        "outrider doctor",
    ]


def test_every_cause_in_the_source_is_in_the_page_and_explained() -> None:
    text = (ROOT / "docs/reference/causes.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \|[^|]*\| (.*) \|$", text, re.MULTILINE))
    found = generate.causes()
    assert "PERMISSION_MISSING" in found, "the scan of the source finds causes"
    missing = sorted(found.keys() - rows.keys())
    assert not missing, "run `python tests/docs/generate.py --write`"
    silent = sorted(code for code, rest in rows.items() if not rest.split(" | ")[0].strip())
    assert not silent, "give them words in MEANINGS of tests/docs/generate.py"
    assert sorted(rows.keys() - found.keys()) == [], "the source gives these no more"


def test_no_refusal_hides_its_cause_from_the_scan() -> None:
    """A cause that is given by a helper which the scan does not know would be missing without a word."""
    known = set(generate.causes()) | NOT_CAUSES
    unknown = set()
    for file in sorted((ROOT / "src" / "outrider").rglob("*.py")):
        if "sim" not in file.parts and "bench" not in file.parts:
            text = file.read_text(encoding="utf-8")
            unknown |= set(re.findall(r'[(\s]"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)",', text)) - known
    assert not unknown, "add the helper to CARRIERS of tests/docs/generate.py, or the word to NOT_CAUSES"


NOT_CAUSES = {
    "DEPENDS_ON", "IN_USE", "PACKAGE_MANAGER",
    "ANY_UE", "CANARY_RELEASE", "CONNECTIVITY_STATE_REPORT", "CONTINUOUS", "FIRST_EVENT", "LOCATION_REPORT",
    "NF_ADDED", "NF_DEREGISTERED", "NF_PROFILE_CHANGED", "NF_REGISTERED", "NF_REMOVED", "NOT_YET_VALID",
    "ONE_TIME", "OUTRIDER_DIR", "OUTRIDER_FAILPOINT", "OUTRIDER_FAILPOINT_ORDER", "OUTRIDER_FAILPOINT_REPORT",
    "OUTRIDER_SOCKET", "PDU_SES_EST", "PDU_SES_REL", "REACHABILITY_REPORT", "REGISTRATION_STATE_REPORT",
    "SOURCE_DATE_EPOCH", "SSL_CERT_DIR", "SSL_CERT_FILE", "SYSTEM_FAILURE", "TARGET_NF_SUSPENDED",
}  # fmt: skip
"""Words in capitals that are something else: events, states, environment variables, causes of TS 29.5xx in replies."""


@pytest.mark.parametrize("page", sorted(generate.PAGES))
def test_a_generated_page_is_not_stale(page: str) -> None:
    assert not generate.stale(page), "run `python tests/docs/generate.py --write`"


def test_the_tutorial_shows_code_that_is_run_in_tests() -> None:
    page = ROOT / "docs/tutorial/write-an-nf-service.md"
    sources = [*(ROOT / "examples/group-coordination").rglob("*.py"), *(ROOT / "tests/example").rglob("*.py")]
    sources.append(ROOT / "examples/group-coordination/outrider.toml")
    texts = [source.read_text(encoding="utf-8") for source in sources]
    blocks = [
        block for language, block in _FENCE.findall(page.read_text(encoding="utf-8")) if language in ("python", "toml")
    ]
    assert len(blocks) > 10
    foreign = [block for block in blocks if not any(block.strip() in text for text in texts)]
    assert not foreign


def test_every_key_of_the_config_is_documented() -> None:
    from outrider.network.config import HINTS

    text = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    assert [key for key in HINTS if f"`{key}`" not in text] == []


def test_every_field_of_the_report_is_documented() -> None:
    import msgspec

    from outrider.demo.report import Report

    text = (ROOT / "docs/reference/demo-report.md").read_text(encoding="utf-8")
    names = [f.encode_name for f in msgspec.structs.fields(Report)]
    assert [name for name in names if not re.search(rf"`{name}[`.]", text)] == []


def test_every_message_of_the_worker_protocol_is_documented() -> None:
    import msgspec

    from outrider.sdk import wire

    text = (ROOT / "docs/reference/worker-protocol.md").read_text(encoding="utf-8")
    for message in (wire.Run, wire.Value, wire.Cancel, wire.Hello, wire.Proposal, wire.Failure, wire.Read, wire.Log):
        assert f"| `{message.__struct_config__.tag}` |" in text
        assert [f.name for f in msgspec.structs.fields(message) if f"`{f.name}`" not in text] == []


def test_every_openapi_file_is_listed() -> None:
    text = (ROOT / "docs/reference/http-apis.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "src/outrider").rglob("openapi/*.yaml"))
    assert files
    assert [file.stem for file in files if f"`/{file.stem}/v1/openapi.yaml`" not in text] == []


FORBIDDEN = re.compile(
    r"(?<![\w.~])/(work|root|home/\w+|tmp/\w+|Users/\w+)/"  # paths of somebody's machine
    r"|https?://(?!127\.|localhost|192\.0\.2\.|spdx|keepachangelog|semver|www\.apache|in-toto)[\w.-]*"
    r"(pypi|artifactory|nexus|proxy|mirror|registry)[\w.-]*"
    r"|index-url",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_no_page_tells_of_the_machine_it_was_written_on(page: Path) -> None:
    assert [m[0] for m in FORBIDDEN.finditer(page.read_text(encoding="utf-8"))] == []
