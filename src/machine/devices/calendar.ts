/** The Gregorian calendar over whole seconds, without the host's clock or time zone. */

export interface CalendarDate {
  readonly year: number;
  /** 1–12. */
  readonly month: number;
  /** 1–31. */
  readonly day: number;
  /** 0–23. */
  readonly hours: number;
  readonly minutes: number;
  readonly seconds: number;
}

const DAY = 86_400;
/** Days of 400 years, which is when the calendar repeats. */
const DAYS_OF_ERA = 146_097;
/** Days from 1 March 0000 to 1 January 1970. */
const DAYS_TO_1970 = 719_468;

/** Seconds from 1 January 1970 to `date`; fields out of range carry over. */
export function secondsOf(date: CalendarDate): number {
  const months = date.year * 12 + date.month - 1;
  // The year that starts in March, so that a leap day is its last.
  const year = Math.floor((months - 2) / 12);
  const month = months - 2 - year * 12;
  const days =
    year * 365 +
    Math.floor(year / 4) -
    Math.floor(year / 100) +
    Math.floor(year / 400) +
    Math.floor((month * 153 + 2) / 5) +
    date.day -
    1 -
    DAYS_TO_1970;
  return days * DAY + date.hours * 3600 + date.minutes * 60 + date.seconds;
}

/** The date `seconds` after 1 January 1970. */
export function dateOf(seconds: number): CalendarDate {
  const days = Math.floor(seconds / DAY);
  const rest = seconds - days * DAY;
  const since = days + DAYS_TO_1970;
  const era = Math.floor(since / DAYS_OF_ERA);
  const dayOfEra = since - era * DAYS_OF_ERA;
  const yearOfEra = Math.floor(
    (dayOfEra -
      Math.floor(dayOfEra / 1460) +
      Math.floor(dayOfEra / 36_524) -
      Math.floor(dayOfEra / 146_096)) /
      365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const month = Math.floor((5 * dayOfYear + 2) / 153);
  return {
    year: era * 400 + yearOfEra + (month >= 10 ? 1 : 0),
    month: month >= 10 ? month - 9 : month + 3,
    day: dayOfYear - Math.floor((153 * month + 2) / 5) + 1,
    hours: Math.floor(rest / 3600),
    minutes: Math.floor(rest / 60) % 60,
    seconds: rest % 60,
  };
}

/** 1 for Sunday to 7 for Saturday. */
export function dayOfWeek(seconds: number): number {
  // 1 January 1970 was a Thursday.
  const day = (Math.floor(seconds / DAY) + 4) % 7;
  return ((day + 7) % 7) + 1;
}
