"""One program per question; bench/README.md has the questions, the commands and the last answers."""
