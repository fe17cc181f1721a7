//! Who a task runs as: the user and groups of its spec, looked up in its own root, by the rules
//! of Docker (moby/sys `user.GetExecUser`).

use crate::failure::Failure;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, sorted, without duplicates.
    pub(crate) groups: Vec<u32>,
    /// `HOME`.
    pub(crate) home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves `user` (`name`, `uid`, either with `:group` or `:gid`) and `more`, further groups.
/// `passwd` and `group` are the texts of the files of that name. A number need not be listed.
pub(crate) fn resolve(
    user: Option<&str>,
    more: &[String],
    passwd: &str,
    group: &str,
) -> Result<Identity, Failure> {
    let user = user.filter(|text| !text.is_empty()).unwrap_or("0");
    let (name, explicit) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|text| !text.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let account =
        accounts(passwd).find(|account| account.name == name || number == Some(account.uid));
    let (uid, gid, home) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid, account.home),
        (None, Some(uid)) => (uid, 0, "/"),
        (None, None) => return Err(unknown("user", name, "passwd")),
    };
    let (gid, mut groups) = match explicit {
        Some(text) => (group_id(text, group)?, Vec::new()),
        None => (gid, account.map_or_else(Vec::new, |account| member_of(account.name, group))),
    };
    for text in more {
        groups.push(group_id(text, group)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    Ok(Identity { uid, gid, groups, home })
}

fn unknown(kind: &str, name: &str, file: &str) -> Failure {
    Failure::unknown_user(format!(
        "unable to find {kind} {name}: no matching entries in {file} file"
    ))
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields.as_slice() else { return None };
        Some((*name, gid.parse().ok()?, *members))
    })
}

fn group_id(text: &str, group: &str) -> Result<u32, Failure> {
    let listed = groups(group).find(|(name, ..)| *name == text).map(|(_, gid, _)| gid);
    listed.or_else(|| text.parse().ok()).ok_or_else(|| unknown("group", text, "group"))
}

fn member_of(user: &str, group: &str) -> Vec<u32> {
    groups(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests;
