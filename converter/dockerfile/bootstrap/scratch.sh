
# FROM scratch: there is nothing in it.
