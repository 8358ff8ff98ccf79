"""World-action models: a recurrent world model with an inverse-dynamics loss, and policies trained in its imagination.

Importing this package is cheap; its modules are imported by name.
"""

__version__ = "0.1.0"

from worldaction.registration import register as _register

# gymnasium.make("worldaction/PlayTable-v0") works from here on
_register()
