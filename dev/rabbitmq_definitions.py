"""The private broker's definitions: dev/rabbitmq-definitions.json with the users that it speaks of, and the developer's.

    rabbitmq_definitions.py PERMISSIONS.json USER=PASSWORD-FILE... >DEFINITIONS.json
"""
import base64
import hashlib
import json
import sys

SALT_SIZE = 4
DEVELOPER = "guest"  # with the password that every client of RabbitMQ assumes; let in from this machine alone
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


def password_hash(password):
    """As RabbitMQ stores it.  The salt follows from the password, so that the same passwords make the same file; what is
    hashed is random, and needs no salt against guessing."""
    salt = hashlib.sha256(b"salt" + password.encode()).digest()[:SALT_SIZE]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def user(name, password, *tags):
    return {"name": name, "password_hash": password_hash(password), "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": list(tags)}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        definitions = json.load(file)
    users = [user(DEVELOPER, DEVELOPER, "administrator")]
    for argument in sys.argv[2:]:
        name, _, path = argument.partition("=")
        with open(path, encoding="utf-8") as file:
            users.append(user(name, file.read().strip()))
    definitions["users"] = users
    definitions["vhosts"] = [{"name": "/"}]  # a broker that loads definitions makes none by itself
    definitions["permissions"].append({"user": DEVELOPER, "vhost": "/", **EVERYTHING})
    json.dump(definitions, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
