//! Taking a server, a pool or a listener out of service, and back in.
//!
//! A server that is drained gets no new request; what it has in hand goes on. A pool is all its servers, also
//! those that a later reload adds. A listener's sockets are closed, so that whoever stands in front sees it and goes
//! elsewhere, and its connections are asked to leave. None of this is in the file, and a reload keeps it as long as the
//! file has the name.

use std::sync::Arc;

use super::listeners::{plan, wanted};
use super::{Running, StartError};
use crate::config::closest;
use crate::model::Config;
use crate::state::ListenerId;
use crate::state::orders::Service;

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Listener(Arc<str>),
    Pool(Arc<str>),
    /// Its pool, and its identity.
    Server(Arc<str>, Arc<str>),
}

/// `listen.NAME`, `POOL` or `POOL/SERVER`.
fn find(config: &Config, name: &str) -> Result<Target, String> {
    let unknown = |what: String, names: Vec<String>| {
        let near = closest(name, names.iter().map(String::as_str)).map(|near| format!("; did you mean '{near}'?"));
        let some: Vec<&str> = names.iter().map(String::as_str).take(LISTED).collect();
        let more = if names.len() > LISTED { " ..." } else { "" };
        let there = if some.is_empty() { "there is none".to_owned() } else { format!("there are {}", some.join(", ")) };
        Err(format!("there is no {what}{}", near.unwrap_or(format!("; {there}{more}"))))
    };
    if let Some(listener) = name.strip_prefix("listen.") {
        let found = config.listeners.iter().find(|known| *known.name == *listener);
        let names = || config.listeners.iter().map(|listener| format!("listen.{}", listener.name)).collect();
        return found.map_or_else(
            || unknown(format!("listener '{listener}'"), names()),
            |it| Ok(Target::Listener(it.name.clone())),
        );
    }
    let pools = || config.pools.iter().map(|pool| pool.name.to_string());
    if let Some(pool) = config.pools.iter().find(|pool| *pool.name == *name) {
        return Ok(Target::Pool(pool.name.clone()));
    }
    let Some((of, server)) = name.split_once('/') else {
        let listeners = config.listeners.iter().map(|listener| format!("listen.{}", listener.name));
        return unknown(format!("pool '{name}'"), pools().chain(listeners).collect());
    };
    let Some(pool) = config.pools.iter().find(|pool| *pool.name == *of) else {
        let servers = config.pools.iter().flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
        return unknown(
            format!("pool '{of}'"),
            servers.map(|(pool, it)| format!("{}/{}", pool.name, it.name)).collect(),
        );
    };
    match pool.servers.iter().find(|known| *known.name == *server) {
        Some(_) => Ok(Target::Server(pool.name.clone(), name.into())),
        None => {
            let names = pool.servers.iter().map(|server| format!("{of}/{}", server.name)).collect();
            unknown(format!("server '{server}' in pool '{of}'"), names)
        }
    }
}

/// Names that are told to whoever gave a wrong one.
const LISTED: usize = 10;

impl Running {
    /// Takes what has this name out of service, or back in.
    ///
    /// # Errors
    /// In words: nothing has the name, or its address cannot be had again.
    pub async fn set_service(&mut self, drain: bool, name: &str) -> Result<Service, String> {
        let target = find(&self.config(), name)?;
        let kind = match &target {
            Target::Listener(listener) => {
                self.set_listener(drain, listener).await?;
                "listener"
            }
            Target::Pool(_) => "pool",
            Target::Server(pool, _) => {
                if !drain && self.farm.drains().pools.contains(pool) {
                    return Err(format!("all of pool '{pool}' is drained: `reeve ready {pool}` takes it back"));
                }
                "server"
            }
        };
        let before = self.farm.set_drains(|drains| match &target {
            Target::Listener(listener) => set(&mut drains.listeners, listener, drain),
            Target::Pool(pool) => {
                set(&mut drains.pools, pool, drain);
                if !drain {
                    // Whoever takes a pool back means every server of it.
                    let own = |identity: &str| identity.split_once('/').is_some_and(|(of, _)| *of == **pool);
                    drains.servers.retain(|identity| !own(identity));
                }
            }
            Target::Server(_, identity) => set(&mut drains.servers, identity, drain),
        });
        let changed = before != self.farm.drains();
        if changed {
            tracing::info!(kind, name, "{}", if drain { "taken out of service" } else { "back in service" });
        }
        Ok(Service { kind: kind.to_owned(), name: name.to_owned(), draining: drain, changed })
    }

    /// Closes the sockets of a listener, or opens them again.
    async fn set_listener(&mut self, drain: bool, name: &Arc<str>) -> Result<(), String> {
        let config = self.config();
        let mut drained = self.farm.drains().listeners;
        set(&mut drained, name, drain);
        let plan = plan(&self.listeners.places(), wanted(&config, |name| drained.contains(name)));
        let opened =
            self.listeners.open(plan.open, self.workers.count()).map_err(|error: StartError| error.to_string())?;
        let number = |name: &Arc<str>| ListenerId(self.farm.listener_names().id(name));
        let leaving = if drain { vec![number(name)] } else { Vec::new() };
        let handover = self.listeners.commit(opened, plan.stay, plan.close, number);
        if !handover.close.is_empty() {
            self.close(handover.close, leaving).await;
        }
        self.workers.listen(handover.listen).await;
        Ok(())
    }
}

fn set(names: &mut std::collections::BTreeSet<Arc<str>>, name: &Arc<str>, member: bool) {
    if member {
        names.insert(name.clone());
    } else {
        names.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    #[test]
    fn names_are_found_or_the_near_one_is_told() {
        let text = "[listen.web]\naddress = [\"127.0.0.1:1\"]\npool = \"shop\"\n[pool.shop]\nservers = [\n\
                    { name = \"s1\", address = \"127.0.0.1:11\" }, { name = \"s2\", address = \"127.0.0.1:12\" }]\n[pool.images]\n\
                    servers = [{ name = \"i1\", address = \"127.0.0.1:13\" }]\n";
        let config = load_text("reeve.toml", text).config.unwrap();
        assert_eq!(find(&config, "listen.web"), Ok(Target::Listener("web".into())));
        assert_eq!(find(&config, "shop"), Ok(Target::Pool("shop".into())));
        assert_eq!(find(&config, "shop/s2"), Ok(Target::Server("shop".into(), "shop/s2".into())));
        for (name, said) in [
            ("shap", "there is no pool 'shap'; did you mean 'shop'?"),
            ("shop/s9", "there is no server 's9' in pool 'shop'; did you mean 'shop/s1'?"),
            ("shap/s1", "there is no pool 'shap'; did you mean 'shop/s1'?"),
            ("listen.wep", "there is no listener 'wep'; did you mean 'listen.web'?"),
            ("nothing-like-it", "there is no pool 'nothing-like-it'; there are shop, images, listen.web"),
        ] {
            assert_eq!(find(&config, name), Err(said.to_owned()));
        }
    }
}
