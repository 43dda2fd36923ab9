"""Certificates and keys from files: what is in them, and why they are refused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from walsender.auth import TlsInfo
from walsender.errors import ConfigurationError
from walsender.sender import IServerTls
from walsender.testing.certificates import Authority
from walsender.tls import BadCertificate, TlsFiles, load_tls


class TlsTestCase(SynchronousTestCase):
    """Has a directory with a certificate and an authority."""

    def setUp(self) -> None:
        """Make them."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.authority = Authority(self.directory)
        self.certificate, self.key = self.authority.issue("localhost")

    def files(self, **more: str) -> TlsFiles:
        """Return the files, some of them others."""
        given = {"certificate": str(self.certificate), "key": str(self.key), **more}
        return TlsFiles(**given)


class HandshakeTests(TlsTestCase):
    """What is known after a handshake."""

    def shake(self, certificate: tuple[Path, Path] | None = None, **more: str) -> TlsInfo:
        """Shake hands in memory, and return what the server knows."""
        tls = load_tls(self.files(**more))
        verifyObject(IServerTls, tls)
        server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if certificate is not None:
            context.use_certificate_chain_file(str(certificate[0]))
            context.use_privatekey_file(str(certificate[1]))
        client = SSL.Connection(context, None)
        client.set_connect_state()
        for _ in range(4):
            for one, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(1 << 16))
        return tls.info(server)

    def test_withoutCertificate(self) -> None:
        """Nothing but our own end is known of who shows none."""
        der = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(Encoding.DER)
        hashed = hashlib.sha384(der).digest()  # signed with ECDSA and SHA-384
        self.assertEqual(TlsInfo(end_point=hashed), self.shake())
        authorities = str(self.authority.path)
        self.assertEqual(TlsInfo(authorities=True, end_point=hashed), self.shake(authorities=authorities))

    def test_withCertificate(self) -> None:
        """The names in a certificate are as OpenSSL writes them."""
        info = self.shake(self.authority.issue("a, b+ü"), authorities=str(self.authority.path))
        self.assertTrue(info.verified)
        self.assertEqual("a, b+ü", info.common_name)
        self.assertEqual(r"CN=a\, b\+\C3\BC,O=T\C3\A9sts", info.distinguished_name)

    def test_strangers(self) -> None:
        """A certificate that nobody has signed whom we know ends the handshake, and so does a revoked one."""
        other = Authority(self.directory, "other").issue("standby")
        self.assertRaises(SSL.Error, self.shake, other, authorities=str(self.authority.path))
        mine = self.authority.issue("standby")
        revoked = str(self.authority.revoke(mine[0]))
        options = {"authorities": str(self.authority.path), "revoked": revoked}
        self.assertRaises(SSL.Error, self.shake, mine, **options)
        self.assertTrue(self.shake(self.authority.issue("standby"), **options).verified)

    def test_severalLists(self) -> None:
        """Each list in the file of those that have been revoked counts."""
        others = Authority(self.directory, "others")
        both, revoked = self.directory / "both.crt", self.directory / "both.crl"
        both.write_bytes(self.authority.path.read_bytes() + others.path.read_bytes())
        (mine, gone), (other, lost) = (
            (one.issue(f"standby{i}"), one.issue(f"gone{i}"))
            for i, one in enumerate((self.authority, others))
        )
        revoked.write_bytes(self.authority.revoke(gone[0]).read_bytes() + others.revoke(lost[0]).read_bytes())
        options = {"authorities": str(both), "revoked": str(revoked)}
        for good, bad in ((mine, gone), (other, lost)):
            self.assertTrue(self.shake(good, **options).verified)
            self.assertRaises(SSL.Error, self.shake, bad, **options)

    def info(self, common_name: str, old: bytes = b"", new: bytes = b"") -> TlsInfo:
        """Return what is known of a certificate for *common_name*, with *new* in the place of *old*."""
        path, _ = self.authority.issue(common_name, "odd")
        encoded = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
        self.assertIn(old, encoded)
        certificate = x509.load_der_x509_certificate(encoded.replace(old, new))
        connection: Any = SimpleNamespace(
            get_peer_certificate=lambda *, as_cryptography: certificate,
            get_protocol_version_name=str,
            get_cipher_name=str,
            get_cipher_bits=int,
        )
        return load_tls(self.files()).info(connection)

    def test_nullInName(self) -> None:
        """A name that ends early for some and not for others is refused, as by PostgreSQL."""
        error = self.assertRaises(BadCertificate, self.info, "standby\0.example")
        self.assertEqual("SSL certificate's common name contains embedded null", error.message)

    def test_unreadableNames(self) -> None:
        """What cannot be read is no name: Latin-1, as old authorities wrote it, and a string of bits."""
        for found in (
            self.info("bé", b"\x0c\x03b\xc3\xa9", b"\x14\x03b\xe9\xe9"),
            self.info("bob", b"\x0c\x03bob", b"\x03\x03\0ob"),
        ):
            self.assertTrue(found.verified)
            self.assertEqual((None, None), (found.common_name, found.distinguished_name))

    def with_unknown_hash(self) -> str:
        """Return our certificate as if it were signed with a hash that the library does not know."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        encoded = certificate.public_bytes(Encoding.DER)
        known, unknown = bytes.fromhex("2a8648ce3d040303"), bytes.fromhex("2a8648ce3d040309")
        self.assertIn(known, encoded)
        return ssl.DER_cert_to_PEM_cert(encoded.replace(known, unknown))

    def test_unknownHash(self) -> None:
        """Such a certificate cannot be bound to, and is good otherwise."""
        self.certificate.write_text(self.with_unknown_hash())
        self.assertEqual(TlsInfo(), self.shake())

    def test_replacedMeanwhile(self) -> None:
        """What is bound to is the certificate that is shown, even if the file changes while it is read."""
        use = SSL.Context.use_certificate_chain_file
        other = self.with_unknown_hash()

        def replaced(context: SSL.Context, path: str) -> None:
            Path(path).write_text(other)
            use(context, path)

        self.patch(SSL.Context, "use_certificate_chain_file", replaced)
        self.assertEqual(TlsInfo(), self.shake())

    def test_withoutHash(self) -> None:
        """A certificate that is signed without a hash of its own cannot be bound to."""
        certificate, key = Authority(self.directory, "edwards", ed25519_keys=True).issue("localhost")
        tls = load_tls(TlsFiles(str(certificate), str(key)))
        self.assertIsNone(tls.info(tls.serverConnectionForTLS(None)).end_point)  # type: ignore[arg-type]


class RefusalTests(TlsTestCase):
    """Files that cannot be used."""

    def refusal(self, **more: str) -> str:
        """Return why the files are refused."""
        return self.assertRaises(ConfigurationError, load_tls, self.files(**more)).message

    def test_missing(self) -> None:
        """Each file is named, with the system's reason."""
        nowhere = str(self.directory / "nowhere")
        authorities = str(self.authority.path)
        for more, text in (
            ({"certificate": nowhere}, "could not load server certificate file"),
            ({"key": nowhere}, "could not access private key file"),
            ({"authorities": nowhere}, "could not load root certificate file"),
            (
                {"authorities": authorities, "revoked": nowhere},
                "could not load SSL certificate revocation list file",
            ),
        ):
            self.assertEqual(f'{text} "{nowhere}": No such file or directory', self.refusal(**more))

    def test_nonsense(self) -> None:
        """What is no certificate or key is told from what is none for the other."""
        path = self.directory / "nonsense"
        path.touch(mode=0o600)
        path.write_text("nonsense")
        self.assertIn("could not load server certificate file", self.refusal(certificate=str(path)))
        self.assertIn("could not load private key file", self.refusal(key=str(path)))
        self.assertIn("could not load root certificate file", self.refusal(authorities=str(path)))
        _, other = self.authority.issue("else")
        self.assertIn("key values mismatch", self.refusal(key=str(other)))

    def test_permissions(self) -> None:
        """A key that others can read is none; a group may read root's."""
        access = f'private key file "{self.key}" has group or world access: '
        for mode, permitted in ((0o600, True), (0o400, True), (0o644, False), (0o620, False), (0o604, False)):
            self.key.chmod(mode)
            if permitted:
                load_tls(self.files())
            else:
                self.assertTrue(self.refusal().startswith(access), oct(mode))
        self.key.chmod(0o640)
        if os.geteuid() == 0:
            load_tls(self.files())
        else:
            self.assertTrue(self.refusal().startswith(access))
        directory = str(self.directory)
        self.assertIn("private key file", self.refusal(key=directory))

    def test_owners(self) -> None:
        """It must belong to us or to root; root may use anybody's."""
        status = self.key.stat()
        owner = status.st_uid

        def fstat(_: int) -> Any:
            return os.stat_result((0o100600, *status[1:4], 4242, *status[5:]))

        self.patch(os, "fstat", fstat)
        self.patch(os, "geteuid", lambda: owner or 1)
        text = f'private key file "{self.key}" must be owned by the database user or root'
        self.assertEqual(text, self.refusal())
        self.patch(os, "geteuid", lambda: 0)
        load_tls(self.files())


class EndTests(TlsTestCase):
    def test_end(self) -> None:
        """Until when the certificate is good is what OpenSSL says of it."""
        loaded = crypto.load_certificate(crypto.FILETYPE_PEM, self.certificate.read_bytes())
        end = loaded.get_notAfter()
        assert end is not None
        expected = datetime.strptime(end.decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        self.assertEqual(expected.timestamp(), load_tls(self.files()).not_after)
