"""Where a served model answers: addresses and keys from the environment or a file, and the way there."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import yaml

from dpsda.errors import InputError, did_you_mean, not_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
OPENAI_URL = "https://api.openai.com/v1"
AZURE_VERSION = "2024-10-21"  # the last stable version of Azure's dated ones
ENTRY = ("openai_api_key", "key_env", "openai_api_base", "engine", "api_version")


@dataclass(frozen=True)
class Endpoint:
    """A server and the key to it, empty where it needs none; `deployment` and `api_version` are Azure's."""

    url: str
    key: str = field(repr=False)
    deployment: str | None = None
    api_version: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise InputError("an API base has to look like https://host/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:  # not quoted: it may hold a key
            raise InputError(
                f"the API base of {self.host} has a user, a password or a query in it, which would be saved with the "
                "run; give the bare address, and the key in an environment variable"
            )
        if not (self.key.isascii() and self.key.isprintable()) or " " in self.key:
            raise InputError(f"the key for {self.host} has a space, a line break or an odd letter in it: copy it again")

    @property
    def closed(self) -> bool:
        """Whether nobody on the way can read what is sent there."""
        parts = urlsplit(self.url)
        return parts.scheme == "https" or _loopback(parts.hostname or "")

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def proxy(self) -> httpx2.Proxy | None:
        """The proxy of the environment that it is asked through; None where it is asked directly.

        This machine is asked directly, and so is whatever is asked over plain http: a proxy would read prompts and key.
        What goes through one by https is a tunnel, which it cannot look into.
        """
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        found = urllib.request.getproxies()
        name = next((name for name in ("https", "all") if found.get(name)), None)
        if name is None or parts.scheme != "https" or _loopback(host):
            return None
        if _spared(host, parts.port or 443, found.get("no", "")):
            return None
        return _proxy(found[name], f"{name}_proxy", host)


def endpoints(model: str, api_base: str | None = None, model_config: Path | None = None) -> list[Endpoint]:
    """Who answers for `model`: by `model_config` or the file in $MODEL_CONFIG, else by `api_base` and environment."""
    if api_base and model_config:
        raise InputError("give an API base or a model config, not both: the file has the base of each endpoint")
    file = model_config or (None if api_base else os.environ.get("MODEL_CONFIG"))
    if file:
        try:
            return _from_file(model, Path(file).expanduser())
        except RuntimeError as error:
            raise InputError(f"{file}: {error}") from None
    azure_key, azure_url, key, url = (
        os.environ.get(name, "").strip()
        for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    )
    if azure_key and azure_url and not api_base:
        deployment = os.environ.get("AZURE_OPENAI_DEPLOYMENT") or model
        end = Endpoint(azure_url, azure_key, deployment, os.environ.get("OPENAI_API_VERSION") or AZURE_VERSION)
        if not end.closed:
            raise InputError(
                "AZURE_OPENAI_ENDPOINT is plain http to another machine, and the key could be read on the way: give an "
                "https address"
            )
        return [end]
    url = api_base or url
    if not key and not url:
        raise InputError(
            "no key: set OPENAI_API_KEY, or AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT, or MODEL_CONFIG to "
            "a file with keys; for a server that needs none, give its API base"
        )
    end = Endpoint(url or OPENAI_URL, key)
    # a key of OpenAI's is not for everybody on the way; one for this server goes into a model config
    return [end if end.closed else replace(end, key="")]


def _from_file(model: str, path: Path) -> list[Endpoint]:
    if path.resolve().is_relative_to(REPOSITORY):
        raise InputError(f"{path} lies in the repository, where its keys may be published by accident: move it out")
    try:
        models = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # a key or a version is never a number
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise not_yaml(path, error) from None
    if not isinstance(models, dict) or model not in models:
        names = models if isinstance(models, dict) else ()
        raise InputError(f"{path} has no entry {model!r}{did_you_mean(model, names)}")
    entries = models[model] if isinstance(models[model], list) else [models[model]]
    found = [_from_entry(entry, f"{path}, {model}, entry {number}") for number, entry in enumerate(entries, start=1)]
    if not found:
        raise InputError(f"{path}: {model} has no entry")
    return found


def _from_entry(entry: Any, where: str) -> Endpoint:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise InputError(f"{where} has to be a mapping of {', '.join(ENTRY)} to text")
    for name in entry:
        if name not in ENTRY:
            raise InputError(f"{where}: unknown key {name!r}{did_you_mean(name, ENTRY)}")
    url, deployment, variable = (entry.get(name, "").strip() for name in ("openai_api_base", "engine", "key_env"))
    key = (os.environ.get(variable, "") if variable else entry.get("openai_api_key", "")).strip()
    if variable and "openai_api_key" in entry:
        raise InputError(f"{where}: give openai_api_key or key_env, not both")
    if variable and not key:
        raise InputError(f"{where}: the environment variable {variable} is not set")
    if not key and (deployment or not url):
        raise InputError(f"{where}: no key; give openai_api_key, or key_env with the name of a variable that holds it")
    if bool(deployment) < ("api_version" in entry) or (deployment and not url):
        raise InputError(f"{where}: Azure needs engine (the deployment), openai_api_base, and perhaps api_version")
    if deployment:
        return Endpoint(url, key, deployment, entry.get("api_version") or AZURE_VERSION)
    return Endpoint(url or OPENAI_URL, key)


def _loopback(host: str) -> bool:
    """Whether `host` is this machine by its name or its address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _spared(host: str, port: int, no_proxy: str) -> bool:
    """Whether `no_proxy` lists the server: by a name that its own ends in, an address, a network, or all by *."""
    for entry in no_proxy.lower().replace(",", " ").split():
        name = entry.rpartition("://")[2]
        end = name.removeprefix("*").removeprefix(".")
        if name == "*" or (end and any(f".{own}".endswith(f".{end}") for own in (host, f"{host}:{port}"))):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(name.strip("[]"), strict=False):
                return True
        except ValueError:  # one of them is a name
            continue
    return False


def _proxy(address: str, variable: str, host: str) -> httpx2.Proxy:
    """The proxy at `address`, which is not quoted: it may hold a password."""
    address = address.strip()
    scheme, mark, _ = address.partition("://")
    if mark and scheme.isalnum() and scheme.lower() not in ("http", "https"):
        raise InputError(
            f"{variable} names a {scheme} proxy, and only http and https ones are supported: set it to "
            f"http://HOST:PORT, or list {host} in no_proxy"
        )
    try:
        proxy = httpx2.Proxy(address if mark else f"http://{address}")
        if not proxy.url.host or "%" in proxy.url.host or urlsplit(str(proxy.url)).port == 0:
            raise ValueError
    except (ValueError, httpx2.InvalidURL):
        raise InputError(
            f"{variable} is not the address of a proxy: set it to http://HOST:PORT, or list {host} in no_proxy"
        ) from None
    return proxy
