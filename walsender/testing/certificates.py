"""Certificates for tests, made when they are needed; what they protect is nothing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

_Key: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_END = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tésts"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


class Authority:
    """
    Signs certificates into a directory.

    :ivar path: of its own certificate.
    """

    def __init__(self, directory: Path, name: str = "authority", *, ed25519_keys: bool = False) -> None:
        self._directory = directory
        self._ed25519 = ed25519_keys
        self._key = self._new_key()
        self._certificate = self._sign(self._key, name, self._key, _name(name), is_authority=True)
        self.path = directory / f"{name}.crt"
        self.path.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def _new_key(self) -> _Key:
        return (
            ed25519.Ed25519PrivateKey.generate() if self._ed25519 else ec.generate_private_key(ec.SECP256R1())
        )

    def _sign(
        self, key: _Key, common_name: str, signing_key: _Key, issuer: x509.Name, *, is_authority: bool
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_START)
            .not_valid_after(_END)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return builder.sign(signing_key, None if self._ed25519 else hashes.SHA384())

    def issue(self, common_name: str, file_name: str | None = None) -> tuple[Path, Path]:
        """Return the paths of a new certificate for *common_name* and of its key."""
        key = self._new_key()
        certificate = self._sign(key, common_name, self._key, self._certificate.subject, is_authority=False)
        paths = tuple(self._directory / f"{file_name or common_name}.{kind}" for kind in ("crt", "key"))
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths[0], paths[1]

    def revoke(self, certificate: Path) -> Path:
        """Return the path of a list that takes *certificate* back."""
        number = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(_START).build()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(_START)
            .next_update(_END)
            .add_revoked_certificate(revoked)
        )
        path = self._directory / "revoked.crl"
        path.write_bytes(builder.sign(self._key, hashes.SHA384()).public_bytes(Encoding.PEM))
        return path
