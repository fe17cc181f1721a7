//! What the tests above the crates share: the lab of real daemons in network namespaces.
