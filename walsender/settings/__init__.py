"""
Settings: the table of them, where their values come from, and one typed object made of both.

The command line wins over the configuration file, the file over the default.
Every value goes through this room as text and leaves it typed and checked, or
as a `ConfigurationError` of one line that names the setting and its source.
Nothing here opens anything but configuration files.
"""

from .command_line import Option, help_text, options
from .loading import InvalidSettings, Settings
from .setting import Setting
from .table import SETTINGS

__all__ = ["SETTINGS", "InvalidSettings", "Option", "Setting", "Settings", "help_text", "options"]
