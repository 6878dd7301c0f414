"""What a server sends back: an answer, or in whatever form why there is none."""

from __future__ import annotations

import contextlib
import email.utils
import html
import json
import math
import re
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2

LONG_WAIT = 60.0  # seconds that a server may ask to wait before the user hears until when
LONGEST_WAIT = 3600.0  # a server that asks for more is not asked again
FOREVER = 1e9  # seconds, the longest wait that a clock has to show
AGAIN = {408, 409, 429}  # and 5xx, and an answer that has none in it
WRONG = {301, 302, 303, 307, 308, 401, 403, 404}  # the key, the address or the name
SHUT = WRONG | {402}  # another request to this endpoint would end in the same way
SPENT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error"}
SPENT |= {"access_terminated", "account_deactivated"}  # whatever the status: no waiting helps
TOO_LONG = {"context_length_exceeded", "string_above_max_length"}
FILTERED = {"content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation"}
UNSUPPORTED = re.compile(
    r"(?i)unsupported|unknown|unrecogni[sz]ed|unexpected|deprecated|extra inputs|cannot both|(may|can) only be"
    r"|(not|n't|no longer)( be)? (support|allow|permit|accept|recogni[sz])|only .*(default|allowed|supported|accepted)"
)
OUT_OF_RANGE = re.compile(
    r"(?i)too (large|small|high|low|big|many)|maximum|minimum|above|below|at (most|least)|(less|greater) than|between"
    r"|out of range|must be in|negative|positive|<=|>="
)
MARKUP = re.compile(r"(?is)<!--.*?-->|<(script|style)\b.*?</\1\s*>|<[^>]*>")


@dataclass(frozen=True)
class Failure:
    """What came instead of an answer, in the words of the server, or of what did not reach it."""

    words: str = field(repr=False)  # a server may echo the key
    status: int = 0  # 0 where nothing came
    error: str = ""  # why nothing came
    codes: frozenset[str] = frozenset()
    parameter: str = ""  # that the server complains of
    wait: float = 0.0  # seconds that the server asks for
    at: float = field(default_factory=time.time)

    @property
    def filtered(self) -> bool:
        return bool(self.codes & FILTERED)

    @property
    def too_long(self) -> bool:
        return bool(self.codes & TOO_LONG) or "maximum context length" in self.words

    @property
    def thought_only(self) -> bool:
        """Whether a reasoning model came to its limit before it answered; others say so by an empty answer."""
        return "model output limit was reached" in self.words

    @property
    def text(self) -> str | None:
        """The answer of a request that ended so: None where it was refused, "" where there is none."""
        return "" if self.thought_only and not (self.filtered or self.too_long) else None

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered a little later."""
        return self.status < 300 or self.status in AGAIN or self.status >= 500

    @property
    def lasts(self) -> bool:
        """Whether no request to this endpoint will be answered any more."""
        asks_too_much = self.passes and self.wait > LONGEST_WAIT
        return asks_too_much or bool(self.codes & SPENT) or self.status in SHUT

    @property
    def what(self) -> str:
        """What happened, to go after the name of the endpoint."""
        if not self.status:
            return f"could not be asked ({self.error})"
        answered = f"answered {self.status}" + (" with no answer in it" if self.status < 300 else "")
        return answered + (f" and asks to wait until {_clock(self.at + self.wait)}" if self.wait > LONG_WAIT else "")

    def refuses(self, parameters: dict[str, float]) -> str | None:
        """The parameter that the server does not take: not one of which it wants another value, as that is the user's
        to give. Of several it is the one that has its default anyway, if there is one."""
        if OUT_OF_RANGE.search(self.words):
            return None
        if self.parameter in parameters:
            return self.parameter
        said = self.words if UNSUPPORTED.search(self.words) else ""
        named = [name for name in parameters if re.search(rf"\b{name}\b", said)]
        return min(named, key=lambda name: parameters[name] != 1, default=None)


class NoAnswer(Exception):
    """A response of status 200 that no answer can be read from."""

    def __init__(self, failure: Failure):
        self.failure = failure


def sound(text: str) -> str:
    """`text` without half characters (lone surrogates), which JSON can carry and no file can."""
    return text.encode(errors="replace").decode()


def answer_of(response: httpx2.Response) -> tuple[str | None, tuple[int, int] | None]:
    """The answer, None where the model refused, and the tokens of prompt and answer if the server says."""
    try:
        data = response.json()
        choice, usage = data["choices"][0], data.get("usage") or {}
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        tokens = (read, written) if isinstance(read, int) and isinstance(written, int) else None
        return _content(choice), tokens
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise NoAnswer(failure_of(response)) from None


def _content(choice: dict[str, Any]) -> str | None:
    """The text of an answer: None where it was refused, "" where there is none."""
    if choice.get("finish_reason") == "content_filter":
        return None
    if choice.get("error"):
        raise ValueError
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]
        if any(part.get("refusal") for part in parts):
            return None
        content = "".join(part["text"] for part in parts if part.get("type", "text") in ("text", "output_text"))
    if message.get("refusal"):
        return None
    if content is None:  # a reasoning model has answered nothing where it thought, until its limit or not
        thought = message.get("reasoning_content") or message.get("reasoning")
        return "" if thought or choice.get("finish_reason") == "length" else None
    return sound(content)


def failure_of(response: httpx2.Response) -> Failure:
    """What a server says that does not answer, in whatever form: OpenAI's, a gateway's, or a page for people."""
    status, wait = response.status_code, retry_after(response.headers)
    if response.has_redirect_location:
        return Failure(f"it redirects to {response.headers['location']}", status)
    try:
        error = _first(response.json())
    except (ValueError, RecursionError):
        kind, text = response.headers.get("content-type", "of no type"), response.text[:20_000]
        if "html" in kind or text.lstrip().startswith("<"):
            text = html.unescape(MARKUP.sub(" ", text))
        return Failure(f"no JSON ({kind}): {text}" if text.strip() else "", status, wait=wait)
    if isinstance(error, dict):
        error = error.get("error") or _first(error.get("choices")) or error
    if isinstance(error, dict):
        error = error.get("error") or error  # of a choice
    if not isinstance(error, dict):
        error = {"message": error}
    words, inner = error.get("message") or error.get("detail") or error, error.get("innererror")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    if status < 300 and isinstance(codes[0], int) and 400 <= codes[0] < 600:  # the status, as a gateway passes it on
        status = codes[0]
    return Failure(
        words if isinstance(words, str) else json.dumps(words, ensure_ascii=False),
        status,
        codes=frozenset(str(code) for code in codes),
        parameter=str(error.get("param")).rpartition(".")[2],
        wait=wait,
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _clock(moment: float) -> str:
    """A moment by the clock here, rounded up to the minute, with its date unless it is today."""
    local = time.localtime(math.ceil(moment / 60) * 60)
    return time.strftime("%H:%M" if local[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", local)


def retry_after(headers: httpx2.Headers) -> float:
    """The seconds that the server asks to wait, 0 where it does not say."""
    wait = headers.get("retry-after", "")
    readings = (
        lambda: float(headers.get("retry-after-ms", "")) / 1000,
        lambda: float(wait),
        lambda: email.utils.parsedate_to_datetime(wait).timestamp() - time.time(),
    )
    for read in readings:
        with contextlib.suppress(ValueError):
            seconds = read()
            return min(max(seconds, 0.0), FOREVER) if math.isfinite(seconds) else 0.0
    return 0.0
