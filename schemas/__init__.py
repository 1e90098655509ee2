"""The agreement between trainer and service: what a bundle is, what an image becomes, what is asked and answered."""
