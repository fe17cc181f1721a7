//! The kinds of operations, as patterns: a match that names all of them is exhaustive, so a new
//! operation must find its place here.

/// More than one namespace is concerned.
macro_rules! shared_op {
    () => {
        Op::CreateSpace(_) | Op::DeleteSpace(_) | Op::CreateVeth(_) | Op::CreateLink(..)
    };
}

/// A single request inside one namespace.
macro_rules! single_op {
    () => {
        Op::DeleteLink(..)
            | Op::SetLink(..)
            | Op::AddAddress(..)
            | Op::DeleteAddress(..)
            | Op::AddRoute(..)
            | Op::DeleteRoute(..)
            | Op::AddRule(..)
            | Op::DeleteRule(..)
            | Op::SetSysctl(..)
    };
}

/// A forwarding or neighbour entry: sent in batches.
macro_rules! entry_op {
    () => {
        Op::SetFdb(..) | Op::DeleteFdb(..) | Op::SetNeighbour(..) | Op::DeleteNeighbour(..)
    };
}

/// IPVS: requests of generic netlink.
macro_rules! ipvs_op {
    () => {
        Op::SetVirtualService(..)
            | Op::DeleteVirtualService(..)
            | Op::SetRealServer(..)
            | Op::DeleteRealServer(..)
            | Op::SetIpvsTimeouts(..)
    };
}

/// nftables: lines of a transaction.
macro_rules! nft_op {
    () => {
        Op::LoadTable(..)
            | Op::DeleteTable(..)
            | Op::AddElement(..)
            | Op::DeleteElement(..)
            | Op::SetMapElement { .. }
    };
}
