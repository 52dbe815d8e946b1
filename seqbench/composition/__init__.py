"""From a command line and files to a checked config: composing, reading constructors statically, words for mistakes."""
