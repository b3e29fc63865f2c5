"""Channels whose other end is a program that uses the real crate, in three of its versions.

=============  ====================================================================================================
`peers`        such programs and how the two sides find each other: each can be the one that starts the other
`commands`     what a program can be told, the types of ``tests/rust_peers/peer/src/commands.rs``
`wire`         packets as the crate makes them, on raw sockets
`produced`     the messages that both sides make for the comparison of their packets
=============  ====================================================================================================

A test that takes ``peer`` runs with each version, and for each way to find each other.
"""
