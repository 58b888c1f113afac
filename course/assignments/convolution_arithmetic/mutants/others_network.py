# The numbers are those of another student's network.
mine = {"size": 32, "width": 47, "jump": 4, "first": -23}
