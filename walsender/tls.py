"""
`ServerTls`: our certificate and key, and what a TLS connection says of its two ends.

Made from files by `load_tls`, whole or not at all: on SIGHUP a new one takes the place of
the old for connections that come later, and one that cannot be made changes nothing.
What is switched off (renegotiation, compression, session tickets) and what is asked of
files follows PostgreSQL.

Source: PostgreSQL, src/backend/libpq/be-secure-openssl.c and be-secure-common.c.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from zope.interface import implementer

from walsender.auth import TlsInfo
from walsender.errors import ConfigurationError
from walsender.sender import IServerTls
from walsender.sender.peer import error_text
from walsender.wire import SilentViolation

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

ALPN: Final = b"postgresql"

_VERSIONS: Final = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}
# Names of OpenSSL that are not in the RFC.
_ATTRIBUTES: Final = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.GIVEN_NAME: "GN",
    NameOID.SURNAME: "SN",
    NameOID.TITLE: "title",
}
# Too weak to bind anything to (RFC 5929).
_REPLACED_HASHES: Final = {"md5": "sha256", "sha1": "sha256"}
# Of OpenSSL's ssl.h.  pyOpenSSL sets it: a call encrypts one record of what it is given, and not all.
_ENABLE_PARTIAL_WRITE: Final = 0x1


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    What `load_tls` reads; absolute paths.

    :ivar key: readable by nobody but us, or by root and its group.
    :ivar authorities: who may have signed clients' certificates; empty: clients are not asked for any.
    :ivar revoked: a list of certificates that do not count any more; empty: there is none.
    :ivar minimum_version: ``TLSv1`` to ``TLSv1.3``.
    """

    certificate: str
    key: str
    authorities: str = ""
    revoked: str = ""
    minimum_version: str = "TLSv1.2"


# What a file of revocation lists may hold several of.
_REVOCATION_LIST: Final = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class BadCertificate(SilentViolation):
    """A client's certificate is signed by an authority of ours, and yet cannot be used."""


class NoCommonProtocol(SSL.Error):
    """The client wants to speak something else than ours; ends the handshake with an alert."""


@implementer(IServerTls)
class ServerTls:
    """
    What connections are encrypted with.

    :param context: has certificate and key.
    :ivar not_after: until when the certificate is good, in seconds since 1970.
    :raises ValueError: the certificate cannot be read.
    """

    def __init__(self, context: SSL.Context, *, authorities: bool) -> None:
        self._context = context
        self._authorities = authorities
        context.set_alpn_select_callback(_select_protocol)
        # Of what clients will see: the file that it is from may have been replaced since.
        certificate: Any = SSL.Connection(context, None).get_certificate(as_cryptography=True)
        self._end_point = _end_point(certificate)
        self.not_after: float = certificate.not_valid_after_utc.timestamp()

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IServerTls`."""
        return SSL.Connection(self._context, None)

    def info(self, connection: SSL.Connection) -> TlsInfo:
        """See `IServerTls`."""
        try:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            if certificate is None:
                return TlsInfo(
                    authorities=self._authorities, end_point=self._end_point, cipher=_cipher(connection)
                )
            common_name, distinguished_name = _names(certificate)
        except (ValueError, TypeError):
            # OpenSSL is content with more than the library is, such as Latin-1 of old authorities.  The
            # certificate is good where any is; as a name it is none.
            common_name = distinguished_name = None
        return TlsInfo(
            # One that nobody has signed ends the handshake.
            verified=True,
            common_name=common_name,
            distinguished_name=distinguished_name,
            authorities=self._authorities,
            end_point=self._end_point,
            cipher=_cipher(connection),
        )


def _cipher(connection: SSL.Connection) -> str:
    """Return how *connection* is encrypted, as PostgreSQL's log says it."""
    name, bits = connection.get_cipher_name(), connection.get_cipher_bits()
    return f"protocol={connection.get_protocol_version_name()}, cipher={name}, bits={bits}"


def _select_protocol(_: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN not in offered:
        raise NoCommonProtocol([("SSL routines", "", "no application protocol")])
    return ALPN


def _names(certificate: x509.Certificate) -> tuple[str | None, str]:
    """Return common and distinguished name."""
    subject = certificate.subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = str(names[0].value) if names else None
    if common_name is not None and "\0" in common_name:
        raise BadCertificate("SSL certificate's common name contains embedded null")
    return common_name, _distinguished_name(subject)


def _distinguished_name(subject: x509.Name) -> str:
    """Return *subject* as OpenSSL writes it by RFC 2253: what is not ASCII as escaped bytes."""
    text = subject.rfc4514_string(_ATTRIBUTES)
    return "".join(c if c.isascii() else "".join(f"\\{byte:02X}" for byte in c.encode()) for c in text)


def _problem(text: str, error: BaseException | None = None) -> ConfigurationError:
    if isinstance(error, OSError):
        text = f"{text}: {error.strerror}"
    elif error is not None:
        text = f"{text}: {error_text(error)}"
    return ConfigurationError(text)


def load_tls(files: TlsFiles) -> ServerTls:
    """
    Return what *files* hold.

    Reads files: after the start, not in the reactor's thread.

    :raises ConfigurationError: one of them cannot be used.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | SSL.OP_SINGLE_ECDH_USE
    )
    if hasattr(context, "clear_mode"):  # an older pyOpenSSL takes a call per record
        context.clear_mode(_ENABLE_PARTIAL_WRITE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_min_proto_version(_VERSIONS[files.minimum_version])
    try:
        with Path(files.certificate).open("rb"):  # OpenSSL does not say why it cannot
            context.use_certificate_chain_file(files.certificate)
    except (SSL.Error, OSError, ValueError) as error:
        raise _problem(f'could not load server certificate file "{files.certificate}"', error) from error
    _use_key(context, files.key)
    if files.authorities:
        _use_authorities(context, files)
    try:
        return ServerTls(context, authorities=bool(files.authorities))
    except ValueError as error:  # OpenSSL is content with more than the library is
        raise _problem(f'could not load server certificate file "{files.certificate}"', error) from error


def _use_key(context: SSL.Context, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            _check_permissions(path, os.fstat(file.fileno()))
            content = file.read()
    except OSError as error:
        raise _problem(f'could not access private key file "{path}"', error) from error
    try:
        key: Any = load_pem_private_key(content, None)
    except TypeError as error:
        raise _problem(f'could not load private key file "{path}": it has a passphrase') from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _problem(f'could not load private key file "{path}": no private key in PEM') from error
    try:
        context.use_privatekey(key)
    except SSL.Error as error:
        raise _problem("check of private key failed", error) from error


def _check_permissions(path: str, status: os.stat_result) -> None:
    """
    Check that nobody else can read the key.

    Root, who may read anything and may be about to become somebody else, may use anybody's.

    Source: PostgreSQL, src/backend/libpq/be-secure-common.c, check_ssl_key_file_permissions.
    """
    if not stat.S_ISREG(status.st_mode):
        raise _problem(f'private key file "{path}" is not a regular file')
    user = os.geteuid()
    if status.st_uid not in {0, user} and user != 0:
        raise _problem(f'private key file "{path}" must be owned by the database user or root')
    forbidden = stat.S_IRWXG | stat.S_IRWXO
    if status.st_uid == 0:
        forbidden = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
    if status.st_mode & forbidden:
        raise _problem(
            f'private key file "{path}" has group or world access: File must have permissions u=rw (0600) '
            "or less if owned by the database user, or permissions u=rw,g=r (0640) or less if owned by root."
        )


def _use_authorities(context: SSL.Context, files: TlsFiles) -> None:
    path = files.authorities
    try:
        with Path(path).open("rb"):  # as above
            context.load_verify_locations(path)
        context.load_client_ca(path.encode())
    except (SSL.Error, OSError, ValueError) as error:
        raise _problem(f'could not load root certificate file "{path}"', error) from error
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE)
    context.set_session_id(b"PostgreSQL")
    if not files.revoked:
        return
    store: Any = context.get_cert_store()
    try:
        lists = _REVOCATION_LIST.findall(Path(files.revoked).read_bytes())
        for content in lists or [b""]:
            store.add_crl(x509.load_pem_x509_crl(content))
    except (OSError, ValueError) as error:
        text = f'could not load SSL certificate revocation list file "{files.revoked}"'
        if isinstance(error, ValueError):
            text += ": no revocation list in PEM"
        raise _problem(text, error if isinstance(error, OSError) else None) from error
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _end_point(certificate: x509.Certificate) -> bytes | None:
    """
    Return the hash of our certificate that is its ``tls-server-end-point`` (RFC 5929).

    ``None``: it is signed in a way that has no hash of its own, such as Ed25519, or with one that the
    library does not know.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    name = _REPLACED_HASHES.get(algorithm.name, algorithm.name)
    return hashlib.new(name, certificate.public_bytes(Encoding.DER)).digest()
