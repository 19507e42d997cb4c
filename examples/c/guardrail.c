/*
 * A guardrail that finds e-mail addresses and the numbers of payment cards, which have 13 to 19 digits and the check
 * digit of ISO/IEC 7812 (Luhn). What is found is told with its place, and made asterisks in the redacted content.
 */
#include "sentinel.h"

#define LONGEST_NUMBER 19
#define SHORTEST_NUMBER 13

static bool is_letter(u8 c) {
    return lower(c) >= 'a' && lower(c) <= 'z';
}

/* Of an address before the @; a host's are letters, digits, dots and dashes. */
static bool is_local(u8 c) {
    return is_letter(c) || is_digit(c) || c == '.' || c == '_' || c == '%' || c == '+' || c == '-';
}

static bool is_host(u8 c) {
    return is_letter(c) || is_digit(c) || c == '.' || c == '-';
}

static bool is_wanted(const inspection *inspection, const char *category) {
    for (u32 i = 0; i < inspection->category_count; i++)
        if (equals(inspection->categories[i], category))
            return true;
    return inspection->category_count == 0;
}

/* Where the address ends whose @ is at `i`; 0 where it is none: a name before it, a dot and two letters behind it. */
static u32 end_of_address(text t, u32 start, u32 i) {
    u32 end = i + 1;
    while (end < t.len && is_host(t.at[end]))
        end++;
    while (end > i && (t.at[end - 1] == '.' || t.at[end - 1] == '-')) /* a sentence's */
        end--;
    u32 dot = end - 1;
    while (dot > i && t.at[dot] != '.')
        dot--;
    if (start == i || dot <= i + 1 || end - dot < 3 || !is_letter(t.at[dot + 1]))
        return 0;
    return end;
}

static bool has_check_digit(const u8 *digits, u32 count) {
    u32 sum = 0;
    for (u32 i = 0; i < count; i++) {
        u32 digit = digits[count - 1 - i] * (i % 2 + 1u);
        sum += digit > 9 ? digit - 9 : digit;
    }
    return sum % 10 == 0;
}

/* Where the card's number ends that begins at `start`, its digits parted by single blanks or dashes; 0: it is none.
 * Another number may follow behind such a blank. */
static u32 end_of_number(text t, u32 start) {
    u8 digits[LONGEST_NUMBER];
    u32 count = 0, end = 0;
    for (u32 i = start; i < t.len && count < LONGEST_NUMBER; i++) {
        if (!is_digit(t.at[i])) {
            if ((t.at[i] != ' ' && t.at[i] != '-') || !is_digit(t.at[i - 1]))
                break;
            continue;
        }
        digits[count++] = t.at[i] - '0';
        bool ends = i + 1 == t.len || !is_digit(t.at[i + 1]);
        if (ends && count >= SHORTEST_NUMBER && has_check_digit(digits, count))
            end = i + 1;
    }
    return end;
}

static void mask(text t, u32 start, u32 end) {
    for (u32 i = start; i < end; i++)
        t.at[i] = '*';
}

static findings *inspect(inspection *inspection) {
    findings *f = nothing_found();
    text t = inspection->content;
    bool addresses = is_wanted(inspection, "email"), cards = is_wanted(inspection, "credit-card");
    u32 start = 0; /* of what may be an address's local part */
    for (u32 i = 0; i < t.len && f->count < MAX_FINDINGS; i++) {
        bool begins = i == 0 || !is_digit(t.at[i - 1]);
        u32 end = 0;
        if (addresses && t.at[i] == '@' && (end = end_of_address(t, start, i))) {
            found(f, "email", "an e-mail address", MEDIUM, start, end);
            mask(t, start, end);
        } else if (cards && begins && is_digit(t.at[i]) && (end = end_of_number(t, i))) {
            found(f, "credit-card", "a payment card's number", HIGH, i, end);
            mask(t, i, end);
        }
        if (end)
            i = end - 1;
        if (end || !is_local(t.at[i]))
            start = i + 1;
    }
    return f->count ? redacted(f, t) : f;
}
ON_GUARDRAIL(inspect)
