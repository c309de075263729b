"""The protobuf border: nothing beyond this package sees a message type."""
