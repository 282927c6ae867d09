"""The link's own certificate authority: it says who is the learner, and who is a robot host.

The folder (`$HILSERL_CERTIFICATES`, or `certificates` under HILSERL_HOME) of the machine that made them holds
`ca.pem`, `ca.key`, `learner.pem`, `learner.key` and, for each robot host, a folder with that host's name: `ca.pem`,
`actor.pem`, `actor.key`, to be copied into the certificates folder of that host. `ca.key` can stay anywhere; only making
more certificates needs it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hilserl.errors import TransportError
from hilserl.files import file_lock, write_atomically
from hilserl.link.auth import write_secret
from hilserl.link.messages import check_name

Role = Literal["learner", "actor", "console"]

AUTHORITY_CERTIFICATE = "ca.pem"
_AUTHORITY_KEY = "ca.key"
_AUTHORITY_LIFE = dt.timedelta(days=3652)
_LIFE = dt.timedelta(days=730)
_BACKDATED = dt.timedelta(days=30)  # a robot host without a clock of its own wakes up when it was last switched off
_ALWAYS = ("localhost", "127.0.0.1", "::1")
_DNS_NAME = re.compile(r"(?!-)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}")
_PURPOSE = {
    "learner": ExtendedKeyUsageOID.SERVER_AUTH,
    "actor": ExtendedKeyUsageOID.CLIENT_AUTH,
    "console": ExtendedKeyUsageOID.SERVER_AUTH,
}
_URI = "hilserl://"
_OURS = "hilserl link"

_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Issued:
    """What became of one certificate.

    Attributes:
        file: The certificate.
        what: Whose it is.
        done: `created`, `renewed`, `extended` by names, or `kept` as it was.
    """

    file: Path
    what: str
    done: Literal["created", "renewed", "extended", "kept"]


@dataclass(frozen=True)
class Described:
    """One certificate, for a person.

    Attributes:
        file: Where it is.
        what: `authority`, `learner`, or `actor` and its host.
        names: Names and addresses that it vouches for.
        fingerprint: SHA-256, in hexadecimal.
        expires: Its last moment.
        problem: Why it is of no use; empty: it is.
    """

    file: Path
    what: str
    names: tuple[str, ...]
    fingerprint: str
    expires: dt.datetime
    problem: str


def files_of(folder: Path, role: Role) -> tuple[Path, Path, Path]:
    """Return where a role's certificate, its key and the authority's certificate are."""
    return folder / f"{role}.pem", folder / f"{role}.key", folder / AUTHORITY_CERTIFICATE


def create_certificates(
    folder: Path, learner_names: Sequence[str], robot_hosts: Sequence[str], *, force: bool = False, new_authority: bool = False
) -> list[Issued]:
    """Make what is missing: the authority, the learner's certificate with these names, one for each robot host.

    Args:
        folder: Of the certificates.
        learner_names: DNS names and addresses under which robot hosts reach the learner; added to those it has.
        robot_hosts: Names of robot hosts.
        force: Also make new ones for the learner and these robot hosts where there are some already.
        new_authority: Begin anew: every certificate made before is worth nothing afterwards.

    Raises:
        TransportError: A name cannot be one, or the authority's key is not here or has expired.
        CacheError: The disk is full.
    """
    names = [_check_learner_name(name) for name in learner_names]
    for host in robot_hosts:
        check_name(host, "--robot-host")
        if host.endswith((".pem", ".key")):
            raise TransportError(f"--robot-host is {host!r}: a name may not end like a file of this folder.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file_lock(folder / "lock"):
        certificate, _, _ = files_of(folder, "learner")
        known = read_certificate(certificate) if certificate.exists() else None
        if known is None and not names:
            raise TransportError("Give `--learner NAME`, once for each name or address under which robot hosts reach the learner.")
        had = names_of(known) if known else ()
        issued = []
        is_new = new_authority or not (folder / AUTHORITY_CERTIFICATE).exists()
        if is_new:
            _make_authority(folder)
            issued.append(Issued(folder / AUTHORITY_CERTIFICATE, "authority", "renewed" if new_authority and known else "created"))
        authority = _Authority(folder)
        wanted = tuple(dict.fromkeys((*had, *names, *_ALWAYS)))
        issued.append(authority.issue(folder, "learner", wanted, "the learner", force=force or is_new))
        for host in dict.fromkeys(robot_hosts):
            issued.append(authority.issue(folder / host, "actor", (), host, force=force or is_new))
        return issued


def create_console_certificate(folder: Path, names: Sequence[str], robot_host: str | None = None, *, force: bool = False) -> Issued:
    """Make the certificate that an operator's console shows to browsers; makes the authority as well, where there is none.

    Args:
        folder: Of the certificates.
        names: DNS names and addresses under which browsers reach the console; added to those it has.
        robot_host: The console's host, whose folder gets it; None: this one.
        force: Make a new one where there is one already.

    Raises:
        TransportError: A name cannot be one, or the authority's key is not here or has expired.
        CacheError: The disk is full.
    """
    checked = [_check_learner_name(name, "--console") for name in names]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file_lock(folder / "lock"):
        if not (folder / AUTHORITY_CERTIFICATE).exists():
            _make_authority(folder)
        target = folder if robot_host is None else folder / check_name(robot_host, "--robot-host")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        file, _, _ = files_of(target, "console")
        had = names_of(read_certificate(file)) if file.exists() else ()
        return _Authority(folder).issue(target, "console", tuple(dict.fromkeys((*had, *checked, *_ALWAYS))), "the console", force=force)


def describe_certificates(folder: Path) -> list[Described]:
    """Describe every certificate in `folder`: the authority's, then those beside it, then those of the robot hosts.

    Raises:
        TransportError: There is none, or one cannot be read.
    """
    files = [folder / name for name in (AUTHORITY_CERTIFICATE, "learner.pem", "actor.pem", "console.pem")]
    files += sorted([*folder.glob("*/actor.pem"), *folder.glob("*/console.pem")])
    found = [file for file in files if file.is_file()]
    if not found:
        raise TransportError(f"{folder}: there are no certificates. `hilserl certificates create` makes them.")
    authority = read_certificate(folder / AUTHORITY_CERTIFICATE)
    described = []
    for file in found:
        certificate = read_certificate(file)
        role, host = role_of(certificate)
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        what = "authority" if file.name == AUTHORITY_CERTIFICATE else f"{role or 'unknown'} {host}".strip()
        problem = problem_of(certificate, authority)
        described.append(Described(file, what, names_of(certificate), fingerprint, certificate.not_valid_after_utc, problem))
    return described


def problem_of(certificate: x509.Certificate, authority: x509.Certificate) -> str:
    """Say why a certificate is of no use at this moment; empty: it is."""
    if certificate.not_valid_after_utc <= _now():
        return f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if certificate.not_valid_before_utc > _now():
        begin = certificate.not_valid_before_utc
        return f"it is not valid before {begin:%Y-%m-%d %H:%M} UTC, and this host's clock says {_now():%Y-%m-%d %H:%M}"
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return "it is of another authority"
    return ""


def read_certificate(file: Path) -> x509.Certificate:
    """Read one certificate.

    Raises:
        TransportError: It is missing or damaged.
    """
    return _read(file, x509.load_pem_x509_certificate, "certificate")


def read_key(file: Path) -> _Key:
    """Read one private key.

    Raises:
        TransportError: It is missing or damaged.
    """
    return _read(file, lambda data: serialization.load_pem_private_key(data, password=None), "private key")  # type: ignore[return-value]


def role_of(certificate: x509.Certificate) -> tuple[str, str]:
    """Return the role that a certificate gives, and the name of the robot host; empty where it says nothing, or two things."""
    uris = [uri for uri in _alternative_names(certificate, x509.UniformResourceIdentifier) if uri.startswith(_URI)]
    role, _, host = uris[0].removeprefix(_URI).partition("/") if len(uris) == 1 else ("", "", "")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if role not in _PURPOSE or purposes is None or list(purposes) != [_PURPOSE[role]]:
        return "", ""
    return role, host


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and addresses of a certificate."""
    return tuple(map(str, (*_alternative_names(certificate, x509.DNSName), *_alternative_names(certificate, x509.IPAddress))))


class _Authority:
    """Signs certificates."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / AUTHORITY_CERTIFICATE
        self.certificate = read_certificate(self._file)
        if not (folder / _AUTHORITY_KEY).exists():
            raise TransportError(
                f"{folder}: the authority's key, {_AUTHORITY_KEY}, is not here. Make certificates in the folder where it is, or begin anew "
                "with `--new-ca`: every host then needs its new certificate."
            )
        self._key = read_key(folder / _AUTHORITY_KEY)
        if self.certificate.not_valid_after_utc <= _now():
            raise TransportError(f"{self._file}: the authority expired on {self.certificate.not_valid_after_utc:%Y-%m-%d}. Use `--new-ca`.")

    def issue(self, folder: Path, role: Role, names: tuple[str, ...], what: str, *, force: bool) -> Issued:
        """Write certificate, key and the authority's certificate into `folder`, unless they are there and say the same."""
        file, key_file, authority_file = files_of(folder, role)
        done: Literal["created", "renewed", "extended"] = "created"
        key: _Key | None = None
        if file.exists() and key_file.exists() and not force:
            if set(names) == set(names_of(read_certificate(file))):
                return Issued(file, what, "kept")
            key, done = read_key(key_file), "extended"
        elif file.exists():
            done = "renewed"
        if key is None:
            key = ec.generate_private_key(ec.SECP256R1())
            write_secret(key_file, _pem(key))
        uri = f"{_URI}{role}" + (f"/{what}" if role == "actor" else "")
        certificate = (
            _builder(key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, what)]), self.certificate.subject)
            .not_valid_after(min(_now() + _LIFE, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_PURPOSE[role]]), critical=True)
            .add_extension(x509.SubjectAlternativeName([*map(_as_name, names), x509.UniformResourceIdentifier(uri)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        write_atomically(file, certificate.public_bytes(serialization.Encoding.PEM))
        if authority_file != self._file:
            write_atomically(authority_file, self.certificate.public_bytes(serialization.Encoding.PEM))
        return Issued(file, what, done)


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own for each, so that a certificate of an earlier one is never tried against this one's key.
    unit = x509.NameAttribute(NameOID.COMMON_NAME, f"{_OURS} authority {x509.random_serial_number() >> 128:08x}")
    name = x509.Name([unit])
    certificate = (
        _builder(key, name, name)
        .not_valid_after(_now() + _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_secret(folder / _AUTHORITY_KEY, _pem(key))
    write_atomically(folder / AUTHORITY_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))


def _builder(key: _Key, subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _BACKDATED)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _check_learner_name(name: str, option: str = "--learner") -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if len(name) > 253 or not _DNS_NAME.fullmatch(name):
            raise TransportError(f"{option} is {name!r}: give a DNS name or an address, such as `learner.lab` or 192.168.1.20.") from None
        return name.lower()
    if address.is_unspecified:
        raise TransportError(f"{option} is {name}: that is every address of a machine. Give the one that others connect to.")
    return str(address)


def _as_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _alternative_names(certificate: x509.Certificate, kind: type) -> list:
    found = _extension(certificate, x509.SubjectAlternativeName)
    return [] if found is None else found.get_values_for_type(kind)


def _extension[T: x509.ExtensionType](certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None


def _read[T](file: Path, parse: Callable[[bytes], T], what: str) -> T:
    try:
        return parse(file.read_bytes())
    except FileNotFoundError:
        raise TransportError(f"{file}: there is no such {what}. `hilserl certificates create` makes them.") from None
    except (ValueError, TypeError, PermissionError) as error:
        raise TransportError(
            f"{file}: the {what} cannot be read ({error}). Make a new one with `hilserl certificates create --force`."
        ) from error


def _pem(key: _Key) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
