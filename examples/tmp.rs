use std::sync::Arc;
use reeve::model::*;
use reeve::model::listener::*; use reeve::model::pool::*; use reeve::model::rule::*;
fn main(){
 let a: Vec<String>=std::env::args().collect();
 let place=Place::file("x");
 let mut c=Config::default();
 c.rule_sets.push(RuleSet::default());
 c.process.workers=Some(a.get(3).and_then(|n|n.parse().ok()).unwrap_or(1));
 c.process.socket=Some("/tmp/tmp-reeve.sock".into());
 c.monitor.metrics_addresses.push("127.0.0.1:18099".parse().unwrap());
 if a.len()>4 { c.log.access=Some(reeve::model::config::AccessLog{format:reeve::model::config::LogFormat::Json,target:reeve::model::config::LogTarget::File(a[4].clone().into())}); }
 c.listeners.push(Listener{name:"web".into(),addresses:vec![a[1].parse().unwrap()],protocol:Protocol::Http,rules:0,pool:Some("o".into()),trusted:vec![],forwarded:false,built:true,place:place.clone()});
 c.pools.push(Pool{name:"o".into(),scheduler:Scheduler::Wlc,servers:vec![Server{name:"s".into(),address:Address::Ip(a[2].parse().unwrap()),weight:1,limit:None,backup:false,place:place.clone()}],checks:vec![],retry:Retry::default(),timeouts:Timeouts::default(),place:place.clone()});
 let load=reeve::config::Load{config:Some(c),..Default::default()};
 let p=reeve::app::check::Prepared{load,tables:vec![Arc::new(reeve::route::Table::default())],failed_expects:0};
 reeve::app::start::run(p,reeve::app::start::RunOptions{ready:Box::new(|_|()),stop_after:None});
}
