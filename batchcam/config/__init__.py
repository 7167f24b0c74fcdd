"""What every command is asked: how one field says its option, and the options that several commands share."""
