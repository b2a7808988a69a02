"""Third floor: judges what was trained."""
