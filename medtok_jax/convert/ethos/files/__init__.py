"""What goes into a checkout of ethos-ares; `events` is used here too."""
