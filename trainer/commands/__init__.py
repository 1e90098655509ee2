"""The commands that cli.py only names: one file each, with the options that it reads and the words that it says."""
