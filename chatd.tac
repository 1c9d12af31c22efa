"""`twistd -ny chatd.tac`: the same service as `twistd chatd`, configured by the environment."""

from twisted.application.service import Application

from chatd.tap import service_from_environment

application = Application("chatd")
service_from_environment().setServiceParent(application)
