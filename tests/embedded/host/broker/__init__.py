"""The host's own package of this name: who takes the print jobs to the printers."""

VERSION = "broker 7.1 of the print shop"
