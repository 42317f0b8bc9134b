//! What takes minutes: sessions that outlive every timer between them and their server. Only with `./check --long`.

use std::time::Duration;

use super::farms::{Watch, viewer};
use super::net::{Farm, RULES, Way, listener, pool};
use super::players::{ffmpeg_of, gstreamer_of};
use crate::farm::{among_others, observe};

const URL: &str = "rtsp://10.77.1.100:8554/test";
/// A minute of pictures, fifteen a second, and what it may take.
const PICTURES: usize = 900;
const LIMIT: Duration = Duration::from_secs(90);

/// The server forgets a session after 20 s without a word of its player's: what keeps it has to get through.
#[test]
fn sessions_outlive_their_timeouts() {
    if std::env::var_os("CHECK_LONG").is_none() {
        return;
    }
    let _turn = among_others();
    let Some(farm) = Farm::new("media-long", Way::Barred) else { return };
    let _origins = farm.origins(&[&["--timeout", "20"]]);
    let _reeve = farm.reeve(&(listener("media", 8554, "relay") + &pool("\"rr\"", 1)), RULES);
    let client = &farm.client;
    std::thread::scope(|scope| {
        let one = scope.spawn(|| ffmpeg_of(client, &["-rtsp_transport", "udp"], URL, PICTURES, LIMIT));
        let two = scope.spawn(|| gstreamer_of(client, &["protocols=udp"], URL, PICTURES, LIMIT));
        let three = scope.spawn(|| pauses(&farm));
        for player in [one, two] {
            let played = player.join().expect("a player");
            // A minute it is, and not what was kept back somewhere.
            assert!(played.as_ref().is_ok_and(|took| *took > Duration::from_secs(55)), "{played:?}");
        }
        three.join().expect("the one that pauses");
    });
}

/// Seventy seconds of silence by UDP, with a word on the connection now and then.
fn pauses(farm: &Farm) {
    let watch = Watch::new(&farm.client);
    let mut viewer = viewer(farm);
    let url = URL.replace("/test", "/vod");
    let session = viewer.ask("SETUP", &format!("{url}/stream=0"), &watch.fields).good().session();
    viewer.ask("PLAY", &url, &session).good();
    watch.media_comes();
    viewer.ask("PAUSE", &url, &session).good();
    // What was under way when it paused.
    watch.media_ends();
    for _ in 0..7 {
        observe(Duration::from_secs(10), "no media while it pauses", || watch.packets() == 0);
        viewer.ask("GET_PARAMETER", &url, &session).good();
    }
    viewer.ask("PLAY", &url, &session).good();
    watch.media_comes();
}
