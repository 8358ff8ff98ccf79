"""What acts: policy heads, their cloning from demonstrations, and updates that improve them in imagination."""

from worldaction.programs import only_programs

only_programs(__name__, __path__[0], {})
