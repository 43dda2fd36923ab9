"""Who may come in."""

from walsender.auth.authorizer import MOST_THREADS, HbaAuthorizer
from walsender.auth.hba import THIS_MACHINE, ClientCert, ClientName, HbaLine, HbaRules, Method
from walsender.auth.hba_file import load_hba
from walsender.auth.ident import IdentMaps, load_ident
from walsender.auth.interfaces import (
    Authenticated,
    ConnectionRequest,
    IAuthenticationClient,
    IAuthorizer,
    TlsInfo,
)
from walsender.auth.local import LocalAuthorizer
from walsender.auth.passwords import PlainPassword, ScramVerifier
from walsender.auth.problems import AccessFileError, Problem
from walsender.auth.stored_passwords import StoredPasswords
from walsender.auth.userlist import Userlist, load_userlist

__all__ = [
    "MOST_THREADS",
    "THIS_MACHINE",
    "AccessFileError",
    "Authenticated",
    "ClientCert",
    "ClientName",
    "ConnectionRequest",
    "HbaAuthorizer",
    "HbaLine",
    "HbaRules",
    "IAuthenticationClient",
    "IAuthorizer",
    "IdentMaps",
    "LocalAuthorizer",
    "Method",
    "PlainPassword",
    "Problem",
    "ScramVerifier",
    "StoredPasswords",
    "TlsInfo",
    "Userlist",
    "load_hba",
    "load_ident",
    "load_userlist",
]
