"""What a study's settings stand for, looked up once: environment, data, sizes. What cannot work is refused here.

Stages take the result; nothing below parses a text again or opens the recorded data set a second time.
"""

from __future__ import annotations
