"""The embedded play table: CALVIN's scene D from primitive shapes in MuJoCo, with CALVIN's actions and observations."""
