"""The URL of Redis: one server, a unix socket, or the Sentinels of a service."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

FORMS = "redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
_SENTINEL = "+sentinel"
_SCHEMES = ("redis", "rediss", "unix", f"redis{_SENTINEL}", f"rediss{_SENTINEL}")
_PORT, _SENTINEL_PORT = 6379, 26379
_LOGIN = ("username", "password")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CHECK_HOSTNAME = "ssl_check_hostname"


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is and how to log in; options have the names that redis-py gives them.

    `nodes` are the server, or the Sentinels of a `service`; there are none for a unix socket.
    `tls` is empty without TLS. With TLS, certificates are always verified.
    """

    nodes: tuple[tuple[str, int], ...]
    socket_path: str | None
    service: str | None
    db: int
    login: Mapping[str, str] = field(repr=False)
    sentinel_login: Mapping[str, str] = field(repr=False)
    tls: Mapping[str, Any]

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: it is not valid; the text says why and repeats nothing that may be secret.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("must be a valid URL: percent-encode the password") from None
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"must begin with {FORMS}")
        if parts.fragment:
            raise ValueError("must not contain #: percent-encode the password (# is %23)")
        socket, sentinel = parts.scheme == "unix", parts.scheme.endswith(_SENTINEL)
        options = _options(parts, sentinel=sentinel)
        userinfo, _, netloc = parts.netloc.rpartition("@")
        login = zip(_LOGIN, map(unquote, userinfo.partition(":")[::2]), strict=True)
        nodes = () if socket else tuple(_node(node, sentinel) for node in netloc.split(","))
        if len(nodes) > 1 and not sentinel:
            raise ValueError("must name one server; redis+sentinel:// names several Sentinels")
        path = [] if socket else [unquote(part) for part in parts.path.split("/") if part]
        service, path = (path[0], path[1:]) if sentinel and path else (None, path)
        if sentinel and not service:
            raise ValueError("must name the service of the Sentinels, such as /mymaster/0")
        if not (database := "/".join(path) or options.get("db", "0")).isdecimal():
            raise ValueError("must name the database by its number, such as /0")
        return cls(
            nodes=nodes,
            socket_path=unquote(parts.path) if socket else None,
            service=service,
            db=int(database),
            login={name: value for name, value in login if value},
            sentinel_login={
                name: options[f"sentinel_{name}"]
                for name in _LOGIN
                if f"sentinel_{name}" in options
            },
            tls=_tls(options) if parts.scheme.startswith("rediss") else {},
        )

    def __str__(self) -> str:
        """Write it without user and password."""
        nodes = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return f"{self.service} of {nodes}" if self.service else self.socket_path or nodes

    def broker_urls(self) -> Iterator[str]:
        """Write the URL of each node as Celery does; TLS is a setting of Celery."""
        login = ":".join(quote(self.login.get(name, ""), "") for name in _LOGIN)
        userinfo = f"{login}@" if self.login else ""
        if self.socket_path:
            yield f"redis+socket://{userinfo}{quote(self.socket_path)}?virtual_host={self.db}"
        scheme = "sentinel" if self.service else "redis"
        for host, port in self.nodes:
            node = f"[{host}]" if ":" in host else host
            yield f"{scheme}://{userinfo}{node}:{port}/{self.db}"


def _node(text: str, sentinel: bool) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port or (_SENTINEL_PORT if sentinel else _PORT)
    except ValueError:
        raise ValueError("must have a number as port, and a percent-encoded password") from None
    if not parts.hostname:
        raise ValueError("must name a host, such as redis://127.0.0.1:6379/0")
    return parts.hostname, port


def _options(parts: SplitResult, *, sentinel: bool) -> dict[str, str]:
    known = ["db"]
    if parts.scheme.startswith("rediss"):
        known += [*_FILES, _CHECK_HOSTNAME]
    if sentinel:
        known += [f"sentinel_{name}" for name in _LOGIN]
    options = dict(parse_qsl(parts.query))
    if not options.keys() <= set(known):  # it may be a part of the password
        raise ValueError(f"has an unknown option: with {parts.scheme}://, use {', '.join(known)}")
    return options


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    """The options of TLS, with the default of redis-py written out for Celery."""
    files = {name: options[name] for name in _FILES if name in options}
    for name, path in files.items():
        if not Path(path).is_file():
            raise ValueError(f"names no existing file as {name}: correct the path {path}")
    if (check := options.get(_CHECK_HOSTNAME, "true")) not in ("true", "false"):
        raise ValueError(f"must have true or false as {_CHECK_HOSTNAME}")
    return {"ssl_cert_reqs": "required", _CHECK_HOSTNAME: check == "true", **files}
