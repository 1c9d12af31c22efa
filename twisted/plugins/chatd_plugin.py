"""Makes ``twistd chatd`` known to twistd: data only, for twistd reads it to list its commands.

Neither this folder nor the one above may hold an ``__init__.py``: it would hide Twisted's own.
"""

from twisted.application.service import ServiceMaker

chatd = ServiceMaker("chatd", "chatd.tap", "A long-polling chat daemon.", "chatd")
