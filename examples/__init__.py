"""The four applications that Workers KV was announced with, each with a program that watches its Worker."""
