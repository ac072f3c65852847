"""The parts of tools/build_probe_pack.py: names, icon sets, clip art, photographs, backgrounds and fonts."""
