//! The Gregorian calendar, for years 0 to 9999.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "every operand is bounded: see each function"
)]

const DAY: i64 = 86_400;
/// Days from the first of March of year 0 to 1970.
const EPOCH: i64 = 719_468;
/// 0000-03-01 and 9999-12-31 23:59:59, between which a clock with four digits of year stays.
const RANGE: (i64, i64) = (-EPOCH * DAY, 253_402_300_799);

/// A date and time of day. The day of the week, 1 for Sunday, follows from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) weekday: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl Civil {
    /// From seconds since 1970.
    pub(super) fn from_seconds(seconds: i64) -> Civil {
        let seconds = seconds.clamp(RANGE.0, RANGE.1);
        let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Counted in years that begin in March, the leap day is the last of its year.
        let shifted = days + EPOCH;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march = (5 * day_of_year + 2) / 153;
        let month = if march < 10 { march + 3 } else { march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let narrow = |value: i64| u8::try_from(value).unwrap_or(0);
        Civil {
            year: u16::try_from(year).unwrap_or(0),
            month: narrow(month),
            day: narrow(day_of_year - (153 * march + 2) / 5 + 1),
            weekday: narrow((days + 4).rem_euclid(7) + 1),
            hour: narrow(time / 3600),
            minute: narrow(time / 60 % 60),
            second: narrow(time % 60),
        }
    }

    /// To seconds since 1970. A month or day that does not exist is the nearest that could, and days
    /// and times past their end run on into what follows.
    pub(super) fn to_seconds(self) -> i64 {
        let month = i64::from(self.month.clamp(1, 12));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * march + 2) / 5 + i64::from(self.day.max(1)) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - EPOCH;
        let time =
            i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        (days * DAY + time).clamp(RANGE.0, RANGE.1)
    }
}

/// The first second after `seconds` whose time of day has the given fields; `None` is any.
pub(super) fn next_match(
    seconds: i64,
    hour: Option<u8>,
    minute: Option<u8>,
    second: Option<u8>,
) -> Option<i64> {
    if hour.is_some_and(|h| h > 23)
        || minute.is_some_and(|m| m > 59)
        || second.is_some_and(|s| s > 59)
    {
        return None;
    }
    let first = seconds.clamp(RANGE.0, RANGE.1) + 1;
    // Minute by minute through a day and what is left of the first minute.
    (0..=1440).find_map(|minutes: i64| {
        let start = first - first.rem_euclid(60) + minutes * 60;
        let now = Civil::from_seconds(start);
        let fits = |field: Option<u8>, value| field.is_none_or(|field| field == value);
        if !fits(hour, now.hour) || !fits(minute, now.minute) {
            return None;
        }
        let found = start + second.map_or((first - start).max(0), i64::from);
        (found >= first && found < start + 60).then_some(found)
    })
}
