//! Digests that link the lines of a log: each line states the digest of the line before it, and a checkpoint states the
//! root of a Merkle tree (RFC 6962) over all lines of its file before it, so that one line can be proved without the others.

use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub(super) type Digest = [u8; 32];

/// The digest that the first line of a log states.
pub(super) const NOTHING: Digest = [0; 32];

/// The digest of a line, without the newline at its end: the leaf hash of RFC 6962.
pub(super) fn leaf(line: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(line);
    hasher.finalize().into()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// A Merkle tree that grows at its right: the roots of its full subtrees, the largest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    size: u64,
    full: Vec<Digest>,
}

impl Tree {
    pub(super) fn push(&mut self, leaf: Digest) {
        let mut root = leaf;
        // Each one at the end of the size's binary digits is a full subtree as large as the one that is finished here.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.full.pop() {
                root = node(&left, &root);
            }
        }
        self.full.push(root);
        self.size += 1;
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// The root; of an empty tree the digest of nothing.
    pub(super) fn root(&self) -> Digest {
        let mut subtrees = self.full.iter().rev();
        let Some(last) = subtrees.next() else { return Sha256::digest([]).into() };
        subtrees.fold(*last, |root, left| node(left, &root))
    }
}

/// The siblings that lead from the leaf at `index` to the root over `leaves`, from the bottom up.
pub(super) fn path(leaves: &[Digest], index: usize) -> Vec<Digest> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, sibling) = match index.checked_sub(left.len()) {
        None => (self::path(left, index), root(right)),
        Some(index) => (self::path(right, index), root(left)),
    };
    path.push(sibling);
    path
}

fn root(leaves: &[Digest]) -> Digest {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::hex;

    /// The check of RFC 9162, section 2.1.3.2.
    fn follows(leaf: Digest, index: usize, size: usize, path: &[Digest]) -> Option<Digest> {
        let (mut index, mut last, mut root) = (index, size.checked_sub(1)?, leaf);
        for sibling in path {
            if last == 0 {
                return None;
            }
            if index % 2 == 1 || index == last {
                root = node(sibling, &root);
                while index % 2 == 0 && index != 0 {
                    (index, last) = (index / 2, last / 2);
                }
            } else {
                root = node(&root, sibling);
            }
            (index, last) = (index / 2, last / 2);
        }
        (last == 0).then_some(root)
    }

    #[test]
    fn roots_are_those_of_rfc_6962() {
        // From the test vectors of certificate-transparency: the leaves "", 00 and 10.
        let mut tree = Tree::default();
        assert_eq!(hex::encode(&tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (line, root) in [
            (&b""[..], "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (&[0x00], "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (&[0x10], "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        ] {
            tree.push(leaf(line));
            assert_eq!(hex::encode(&tree.root()), root);
        }
    }

    proptest! {
        #[test]
        fn a_path_leads_to_the_root(size in 1_usize..70, at in 0_usize..70) {
            let leaves: Vec<Digest> = (0..size).map(|number| leaf(&number.to_le_bytes())).collect();
            let index = at % size;
            let path = path(&leaves, index);
            prop_assert_eq!(follows(leaves[index], index, size, &path), Some(root(&leaves)));
            if size > 1 {
                prop_assert_ne!(follows(leaf(b"another"), index, size, &path), Some(root(&leaves)));
            }
        }
    }
}
