"""How quickly the scheduler takes labels, hands out tasks and runs rounds, beside many campaigns at once."""
