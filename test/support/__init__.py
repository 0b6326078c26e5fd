"""What the black-box tests share: servers, programs, an independent AMQP peer, HTTP down to the byte, load."""
