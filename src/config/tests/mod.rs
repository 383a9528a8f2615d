mod gates;
mod metrics;
mod notify;
mod policy;

use super::Settings;

fn read(text: &str) -> Result<Settings, String> {
    Settings::from_text(text).map_err(|error| error.to_string())
}
