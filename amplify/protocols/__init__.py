"""Protocols by which a judge who cannot check an answer decides between two: by looking alone, by
hearing one side, or by hearing a debate of two.

A protocol is a judge's strategy like any other (see `protocol`): it asks the parts `pro`, `con` and
`environment`, and returns the answer that the judge accepts. Its transcript is a tree like any
other, on which `rewards` are computed.
"""

from amplify.protocols.consultancy import Consultancy
from amplify.protocols.debate import Debate
from amplify.protocols.direct import Direct

PROTOCOLS = {"direct": Direct, "consultancy": Consultancy, "debate": Debate}
"""Protocols by name."""
